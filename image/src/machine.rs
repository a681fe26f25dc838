//! What the build takes from the machine that it runs on: mmdebstrap, and where this machine gets Debian from.

use crate::command::{CommandError, Program};
use crate::layout::SUITE;

/// Debian's archive keys; the keyring of each release knows the keys of the next.
pub const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The machine cannot build an image.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// Not root.
    #[error("building the image needs root (chroot, mount namespaces, package installation)")]
    NotRoot,
    /// Another processor than the image's.
    #[error("images are built on x86-64 machines, this one is {0}")]
    Architecture(&'static str),
    /// apt knows no Debian archive.
    #[error(
        "apt on this machine has no Debian archive configured (apt-get indextargets lists none)"
    )]
    NoArchive,
    /// A program of the machine.
    #[error(transparent)]
    Command(#[from] CommandError),
}

/// Makes the machine able to build: installs mmdebstrap and Debian's keys where they are missing, and says so.
///
/// # Errors
/// Not root, another processor, or apt's error.
pub fn set_up() -> Result<(), MachineError> {
    if !nix::unistd::Uid::effective().is_root() {
        return Err(MachineError::NotRoot);
    }
    if std::env::consts::ARCH != "x86_64" {
        return Err(MachineError::Architecture(std::env::consts::ARCH));
    }
    let mut lacking = Vec::new();
    if !Program::new("mmdebstrap").arg("--version").succeeds() {
        lacking.push("mmdebstrap");
    }
    if !std::path::Path::new(KEYRING).exists() {
        lacking.push("debian-archive-keyring");
    }
    if lacking.is_empty() {
        println!("image: setup nothing to install");
        return Ok(());
    }
    let start = std::time::Instant::now();
    println!("image: setup installs {}", lacking.join(" "));
    Program::new("apt-get").args(["update", "-qq"]).run()?;
    Program::new("apt-get")
        .args(["install", "-y", "-qq", "--no-install-recommends"])
        .args(&lacking)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .run()?;
    println!("image: setup {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}

/// Source lines for [`SUITE`] from the archives that this machine's apt uses; `backports` adds that suite.
///
/// # Errors
/// apt cannot be asked or knows no Debian archive.
pub fn sources(backports: bool) -> Result<String, MachineError> {
    let targets = || {
        Program::new("apt-get")
            .args(["indextargets", "--format", "$(REPO_URI) $(CODENAME) $(LABEL)"])
            .arg("Created-By: Packages")
            .run()
    };
    if let Some(lines) = source_lines(&targets()?, backports) {
        return Ok(lines);
    }
    // without downloaded lists apt knows neither code names nor labels
    println!("image: setup fetches apt's package lists");
    Program::new("apt-get").args(["update", "-qq"]).run()?;
    source_lines(&targets()?, backports).ok_or(MachineError::NoArchive)
}

/// Turns `URI CODENAME LABEL` lines into source lines; `None` without a Debian archive among them.
fn source_lines(targets: &str, backports: bool) -> Option<String> {
    let find = |label: &str| {
        targets.lines().find_map(|line| {
            let (uri, rest) = line.split_once(' ')?;
            let (codename, found) = rest.split_once(' ')?;
            // an archive of backports has the label "Debian Backports"
            (found == label && !codename.ends_with("-updates")).then_some(uri)
        })
    };
    let main = find("Debian")?;
    let line = |uri: &str, suite: &str, components: &str| {
        format!("deb [signed-by={KEYRING}] {uri} {suite} {components}\n")
    };
    let mut lines = line(main, SUITE, "main non-free-firmware");
    lines += &line(main, &format!("{SUITE}-updates"), "main");
    if backports {
        lines += &line(main, &format!("{SUITE}-backports"), "main");
    }
    if let Some(security) = find("Debian-Security") {
        lines += &line(security, &format!("{SUITE}-security"), "main");
    }
    Some(lines)
}

/// Proxies that this machine's apt uses, as configuration lines.
///
/// # Errors
/// apt cannot be asked.
pub fn apt_proxies() -> Result<String, MachineError> {
    let dump = Program::new("apt-config").arg("dump").run()?;
    let proxies = dump.lines().filter(|line| {
        let key = line.split_whitespace().next().unwrap_or("").to_ascii_lowercase();
        key.starts_with("acquire::http") && key.ends_with("::proxy")
    });
    Ok(proxies.fold(String::new(), |all, line| all + line + "\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOKWORM: &str = "http://m/security/ bookworm-security Debian-Security\n\
                            http://m/main/ bookworm-updates Debian\n\
                            http://m/main/ bookworm Debian\n";

    #[test]
    fn sources_use_the_archives_of_the_machine_with_the_suite_of_the_image() {
        let lines = source_lines(BOOKWORM, false).unwrap();
        let suites: Vec<_> = lines.lines().map(|l| l.split(' ').nth(3).unwrap()).collect();
        assert_eq!(suites, ["trixie", "trixie-updates", "trixie-security"]);
        assert!(lines.contains("http://m/security/ trixie-security"));
        assert!(!lines.contains("bookworm"));
    }

    #[test]
    fn a_machine_without_a_security_archive_has_no_security_line() {
        let lines = source_lines("http://m/main/ sid Debian\n", true).unwrap();
        assert!(lines.contains("trixie-backports") && !lines.contains("security"));
    }

    #[test]
    fn third_party_archives_are_not_debian() {
        assert_eq!(source_lines("https://x/apt stable Docker CE\n", false), None);
        assert_eq!(source_lines("", false), None);
    }
}
