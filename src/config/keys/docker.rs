//! The keys of `[docker]`.

use super::{Absent, Kind, RESTART, TEXT_PATH, Table, key};

/// `[docker]`.
pub const DOCKER: Table = Table {
    name: "docker",
    array: false,
    doc: "weft as Docker's network driver and IPAM driver, see docs/docker.md.",
    keys: &[
        key(
            "enabled",
            Kind::Boolean,
            Absent::Means(
                "whether Docker is on this host when weft starts: `/run/docker` or `/var/lib/docker` exists",
            ),
            "true",
            RESTART,
            "Whether weft answers Docker's calls.",
        ),
        key(
            "socket",
            TEXT_PATH,
            Absent::Text("/run/docker/plugins/weft.sock"),
            "\"/run/docker/plugins/weft2.sock\"",
            RESTART,
            "Where Docker looks for its drivers; the file's name without `.sock` is the driver's name, as in `docker network \
             create -d weft`.",
        ),
        key(
            "engine",
            TEXT_PATH,
            Absent::Text("/run/docker.sock"),
            "\"/run/docker/second.sock\"",
            RESTART,
            "The socket of Docker's API, from which weft learns what its containers are called.",
        ),
    ],
};
