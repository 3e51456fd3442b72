//! How many files, and so connections, the process may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{info, warn};

/// What a process needs besides its connections: libraries, logs, models, the runtime's own.
const OTHERS: u64 = 200;

/// Raises the soft limit on open files to the hard one, and says when that is too low for so many connections.
pub fn raise_limit(connections: usize) {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        // Failing leaves the old limit, which is reported below like any other.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
    let have = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let need = connections as u64 + OTHERS;
    if have < need {
        warn!(have, need, connections, "the limit on open files is too low for the configured connections");
    } else {
        info!(have, connections, "limit on open files");
    }
}
