//! How much memory ONNX Runtime may take on this machine.
//!
//! Why: the size of an output can depend on the values of an input, so a request can ask for any amount. The limit turns
//! that into a failed run. It counts what sessions hold in CPU memory: weights, intermediate results and outputs.
//! Not here: GPU memory, which is limited for each session.

use std::fs;

/// The least limit that is taken: 64 MiB.
pub(crate) const LEAST: u64 = 64 << 20;

/// Three quarters of what this process can have: the machine's memory, its control group's limit, its address space limit,
/// whichever is least. The rest is for requests, pictures and the system.
pub(crate) fn default_limit() -> u64 {
    let total = read("/proc/meminfo").and_then(|text| kibibytes(&text, "MemTotal:"));
    let group = read("/sys/fs/cgroup/memory.max")
        .or_else(|| read("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
        .and_then(|text| text.trim().parse().ok());
    let address = read("/proc/self/limits").and_then(|text| address_space(&text));
    // 8 GiB: a guess for a machine that tells nothing.
    let least = [total, group, address].into_iter().flatten().min().unwrap_or(8 << 30);
    (least / 4 * 3).max(LEAST)
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}

fn kibibytes(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// The soft limit of "Max address space", if there is one.
fn address_space(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("Max address space"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_tables_are_read() {
        assert_eq!(kibibytes("MemFree: 5 kB\nMemTotal:       24117248 kB\n", "MemTotal:"), Some(24_117_248 << 10));
        let limits = "Limit                     Soft Limit           Hard Limit           Units\n\
                      Max address space         4294967296           unlimited            bytes\n";
        assert_eq!(address_space(limits), Some(4 << 30));
        assert_eq!(address_space(&limits.replace("4294967296", "unlimited ")), None);
    }

    #[test]
    fn the_default_limit_leaves_room_on_this_machine() {
        let total = kibibytes(&read("/proc/meminfo").expect("linux"), "MemTotal:").expect("a total");
        assert!((LEAST..total).contains(&default_limit()), "{} of {total}", default_limit());
    }
}
