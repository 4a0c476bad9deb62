//! How much memory this machine can still give.

use std::fs;

/// Bytes that new allocations can take without swapping: what Linux estimates as available, and no more than
/// the control group's limit leaves. `None` where the system does not say.
pub fn available() -> Option<usize> {
    let meminfo = fs::read_to_string("/proc/meminfo").ok()?;
    let free = field(&meminfo, "MemAvailable:")?;
    let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse::<usize>().ok();
    let group = match (number("/sys/fs/cgroup/memory.max"), number("/sys/fs/cgroup/memory.current")) {
        (Some(most), Some(used)) => most.saturating_sub(used),
        _ => usize::MAX,
    };
    Some(free.min(group))
}

/// `NAME   12345 kB` in bytes.
fn field(meminfo: &str, name: &str) -> Option<usize> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
    let kilobytes: usize = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_line_it_is_asked_for() {
        let text = "MemTotal:       100 kB\nMemAvailable:    42 kB\n";
        assert_eq!(field(text, "MemAvailable:"), Some(42 * 1024));
        assert_eq!(field(text, "SwapFree:"), None);
        assert_eq!(field("MemAvailable: 99999999999999999999 kB", "MemAvailable:"), None);
    }
}
