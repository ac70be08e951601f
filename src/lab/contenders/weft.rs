//! weft: a daemon on each host, TAPs in containers.

use super::pair::{Pair, Route};
use crate::lab::LabError;

pub(super) fn start(pair: &mut Pair) -> Result<(), LabError> {
    let (lab, stop) = pair.lab_mut();
    lab.start_daemons(stop)?;
    lab.attach_all()?;
    let at = |h, c| {
        let container = lab.container(h, c);
        (&container.netns, container.v4)
    };
    pair.across = Some(Route::new(at(1, 1), at(2, 1))?);
    pair.containers_reach_each_other()
}
