//! Initialising, versions, error texts.

use std::ffi::{CString, c_char};
use std::sync::{Arc, LazyLock};

use nvml_wrapper_sys::bindings as sys;

use super::boundary::{call, enter, guard, with_library};
use super::nvml;
use super::pointer::{Out, TextOut};
use crate::code::Code;
use crate::state::Store;

/// The NVML API that the structures are of.
const NVML_VERSION: &str = "13.580.82.07";
/// Start without GPUs (`NVML_INIT_FLAG_NO_GPUS`), without attaching them.
const KNOWN_FLAGS: u32 = 3;

fn init(name: &str, flags: u32) -> u32 {
    guard(|| {
        if flags & !KNOWN_FLAGS != 0 {
            return Err(Code::INVALID_ARGUMENT);
        }
        let store = with_library(|library| {
            // The environment is asked when the first user comes, so that a process may change it
            // between uses.
            if library.users == 0 {
                library.store = None;
            }
            Arc::clone(library.store.get_or_insert_with(|| Arc::new(Store::from_env())))
        });
        let machine = enter(name, &store)?;
        with_library(|library| {
            library.users += 1;
            library.load = machine.driver.load;
        });
        Ok(())
    })
}

/// Exports functions that must work before the library is initialised.
macro_rules! start {
    ($(fn $name:ident($($argument:ident: $kind:ty),*) $body:expr;)*) => {$(
        // SAFETY: as for all exported functions: the name is the purpose.
        #[unsafe(no_mangle)]
        extern "C" fn $name($($argument: $kind),*) -> u32 {
            $body
        }
    )*};
}

start! {
    fn nvmlInit() init("nvmlInit", 0);
    fn nvmlInit_v2() init("nvmlInit_v2", 0);
    fn nvmlInitWithFlags(flags: u32) init("nvmlInitWithFlags", flags);
    fn nvmlShutdown() guard(|| with_library(|library| {
        library.users = library.users.checked_sub(1).ok_or(Code::UNINITIALIZED)?;
        if library.users == 0 {
            library.event_sets.clear();
        }
        Ok(())
    }));
    fn nvmlSystemGetNVMLVersion(version: TextOut, length: u32)
        guard(|| version.set(length, NVML_VERSION));
    fn nvmlSystemGetCudaDriverVersion(version: Out<i32>) cuda("nvmlSystemGetCudaDriverVersion", version);
    fn nvmlSystemGetCudaDriverVersion_v2(version: Out<i32>)
        cuda("nvmlSystemGetCudaDriverVersion_v2", version);
}

fn cuda(name: &str, version: Out<i32>) -> u32 {
    call(name, |call| version.set(call.machine.driver.cuda))
}

nvml! {
    fn nvmlSystemGetDriverVersion(version: TextOut, length: u32)
        |call| version.set(length, &call.machine.driver.version);
    fn nvmlSystemGetDriverBranch(branch: super::pointer::Versioned, length: u32) |call| {
        // nvmlSystemDriverBranchInfo_v1_t: version, then 80 characters.
        let branch_of = call.machine.driver.version.split('.').next().unwrap_or_default().to_owned();
        let text = format!("r{branch_of}_00");
        if usize::try_from(length).unwrap_or(0) <= text.len() {
            return Err(Code::INSUFFICIENT_SIZE);
        }
        let version = super::pointer::version_of::<sys::nvmlSystemDriverBranchInfo_v1_t>(1);
        let branch_of = super::pointer::field(&text);
        branch.set(version, sys::nvmlSystemDriverBranchInfo_v1_t { version, branch: branch_of })
    };
    fn nvmlSystemGetProcessName(pid: u32, name: TextOut, length: u32) |call| {
        let machine = call.live()?;
        let mut all = machine.gpus.iter().flat_map(|gpu| gpu.all_processes());
        let (process, _) = all.find(|(process, _)| process.pid == pid).ok_or(Code::NOT_FOUND)?;
        name.set(length, &process.name)
    };
    fn nvmlSystemGetHicVersion(count: Out<u32>, _entries: Out<u32>) |_| count.set(0);
    fn nvmlGetExcludedDeviceCount(count: Out<u32>) |_| count.set(0);
}

/// Texts of the codes, with the NUL that C needs.
static TEXTS: LazyLock<Vec<CString>> = LazyLock::new(|| {
    let known = (0..=31).map(|code| Code(code).text());
    known.filter_map(|text| CString::new(text).ok()).collect()
});

// SAFETY: as for all exported functions: the name is the purpose.
#[unsafe(no_mangle)]
extern "C" fn nvmlErrorString(code: u32) -> *const c_char {
    let known = usize::try_from(code).ok().and_then(|code| TEXTS.get(code));
    known.or(TEXTS.last()).map_or(std::ptr::null(), |text| text.as_ptr())
}
