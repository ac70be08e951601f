//! What connects the hosts of a lab, as options of `weft lab up` and `weft lab bench`.

use crate::lab::link::LinkSettings;
use crate::lab::spec::{LabSpec, Underlay};
use clap::Args;
use std::time::Duration;

/// Keys of `[offload]`.
const OFFLOADS: [&str; 7] = ["tap_checksum", "tap_tso", "tap_uso", "merge", "udp_segment", "udp_gro", "avx512"];

#[derive(Debug, Args)]
pub(super) struct PathArgs {
    /// MTU of the containers' ports
    #[arg(long, value_name = "BYTES", default_value_t = 1500)]
    mtu: u16,
    /// MTU of the underlay
    #[arg(long, value_name = "BYTES", default_value_t = 1500)]
    underlay_mtu: u16,
    /// Let the hosts reach each other by IPv6
    #[arg(long)]
    ipv6_underlay: bool,
    /// Switch an offload off
    #[arg(long, value_name = "NAME", value_parser = OFFLOADS)]
    offload_off: Vec<String>,
}

/// Any of these puts the hosts on the lab's own wire instead of a kernel bridge.
#[derive(Debug, Args)]
#[command(next_help_heading = "Impaired underlay")]
pub(super) struct LinkArgs {
    /// Per cent of the underlay's frames that vanish
    #[arg(long, value_name = "PERCENT", value_parser = per_cent)]
    loss: Option<f64>,
    /// Per cent that arrive twice
    #[arg(long, value_name = "PERCENT", value_parser = per_cent)]
    duplicate: Option<f64>,
    /// Per cent that later ones overtake
    #[arg(long, value_name = "PERCENT", value_parser = per_cent)]
    reorder: Option<f64>,
    /// How long each frame is under way
    #[arg(long, value_name = "MS")]
    delay: Option<u64>,
    /// Up to this much more, by chance
    #[arg(long, value_name = "MS")]
    jitter: Option<u64>,
    /// Bits a second that pass each way, in thousands
    #[arg(long, value_name = "KBIT")]
    rate: Option<u64>,
    /// The largest packet that passes; larger ones vanish without an ICMP
    #[arg(long, value_name = "BYTES")]
    max_packet: Option<usize>,
    /// Where chance begins: the same seed, the same luck
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

impl PathArgs {
    pub(super) fn apply(&self, spec: &mut LabSpec) {
        spec.underlay_mtu = self.underlay_mtu;
        spec.ipv6_underlay = self.ipv6_underlay;
        spec.offload_off.clone_from(&self.offload_off);
        spec.networks.iter_mut().for_each(|network| network.mtu = self.mtu);
    }
}

impl LinkArgs {
    /// Leaves the kernel bridge in its place when nothing was asked for.
    pub(super) fn apply(&self, spec: &mut LabSpec) {
        if let Some(settings) = self.settings() {
            spec.underlay = Underlay::Impaired(settings, self.seed);
        }
    }

    /// What the link should do; `None` when nothing was asked for.
    pub(super) fn settings(&self) -> Option<LinkSettings> {
        let wanted = LinkSettings {
            loss: self.loss.unwrap_or_default(),
            duplicate: self.duplicate.unwrap_or_default(),
            reorder: self.reorder.unwrap_or_default(),
            delay: Duration::from_millis(self.delay.unwrap_or_default()),
            jitter: Duration::from_millis(self.jitter.unwrap_or_default()),
            rate: self.rate.map(|kbit| kbit.saturating_mul(1000)),
            max_packet: self.max_packet,
            ..Default::default()
        };
        (wanted != LinkSettings::default()).then_some(wanted)
    }
}

fn per_cent(text: &str) -> Result<f64, String> {
    match text.trim_end_matches('%').parse() {
        Ok(share) if (0.0..=100.0).contains(&share) => Ok(share),
        _ => Err("it is a number from 0 to 100".to_owned()),
    }
}
