//! Judges what ptxas says of the kernels.

/// Kernels that may use local memory.
pub struct Exceptions(Vec<(String, String)>);

impl Exceptions {
    /// Reads lines of: kernel, architecture, why it is accepted.
    ///
    /// # Errors
    /// A line without a reason.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut list = Vec::new();
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
            match line.split_whitespace().collect::<Vec<_>>()[..] {
                [kernel, architecture, _, ..] => list.push((kernel.to_string(), architecture.to_string())),
                _ => {
                    return Err(format!(
                        "kernels/exceptions.txt: '{line}' is not: kernel architecture reason"
                    ));
                }
            }
        }
        Ok(Exceptions(list))
    }

    /// Complains of spills, stack frames and serialised wgmma in what ptxas said.
    ///
    /// # Errors
    /// What it complains of.
    pub fn judge(&self, said: &str, architecture: &str) -> Result<(), String> {
        let mut kernel = "";
        for line in said.lines() {
            if let Some((_, name)) = line.split_once("Function properties for ") {
                kernel = name.trim();
            }
            let uses = line.contains("bytes stack frame")
                && !line.trim().starts_with("0 bytes stack frame, 0 bytes spill stores, 0 bytes");
            if uses && !self.0.iter().any(|(k, a)| k == kernel && a == architecture) {
                return Err(format!(
                    "{kernel} for sm_{architecture}: {}; mend it or list it with a reason in kernels/exceptions.txt",
                    line.trim()
                ));
            }
            // ptxas has a number for each cause (C7510, C7514, ...), and names the kernel in the line.
            if line.contains("wgmma") && line.contains("serialized") {
                return Err(format!("for sm_{architecture}: {}", line.trim()));
            }
        }
        Ok(())
    }
}
