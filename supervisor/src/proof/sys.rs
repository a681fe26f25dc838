//! A system call that no safe crate offers: whether two threads have one table of open files.
#![expect(unsafe_code, reason = "kcmp takes numbers alone and is in no crate")]

/// `KCMP_FILES` (kernel `include/uapi/linux/kcmp.h`).
const KCMP_FILES: libc::c_int = 2;

/// Whether two threads have the same table of open files (kcmp(2)). False where it cannot be told.
pub(super) fn same_files(one: u32, other: u32) -> bool {
    let (Ok(one), Ok(other)) = (libc::pid_t::try_from(one), libc::pid_t::try_from(other)) else {
        return false;
    };
    // SAFETY: all arguments are numbers; the call reads and writes no memory of this process.
    unsafe { libc::syscall(libc::SYS_kcmp, one, other, KCMP_FILES, 0_u64, 0_u64) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_of_ours_has_our_files_and_init_has_others() {
        let own = std::process::id();
        let other = std::thread::spawn(|| nix::unistd::gettid().as_raw()).join().unwrap();
        assert!(same_files(own, own));
        assert!(!same_files(own, 1));
        assert!(!same_files(own, u32::try_from(other).unwrap()), "it has ended");
    }
}
