use std::os::unix::fs::symlink;
use std::time::Instant;

use super::*;

/// A folder like `/sys/bus/pci` with a card of two VFs.
fn folder() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let device = |bdf: &str| {
        let path = root.path().join("devices").join(bdf);
        fs::create_dir_all(&path).unwrap();
        path
    };
    let pf = device("0000:03:00.0");
    for (file, text) in
        [("class", "0x020000\n"), ("sriov_totalvfs", "7\n"), ("sriov_numvfs", "2\n")]
    {
        fs::write(pf.join(file), text).unwrap();
    }
    fs::create_dir_all(pf.join("net/enp3s0")).unwrap();
    fs::create_dir_all(root.path().join("drivers/igb")).unwrap();
    symlink("../../drivers/igb", pf.join("driver")).unwrap();
    for number in 0..2 {
        let bdf = format!("0000:03:10.{number}");
        fs::write(device(&bdf).join("driver_override"), "").unwrap();
        symlink(format!("../{bdf}"), pf.join(format!("virtfn{number}"))).unwrap();
    }
    let disk = device("0000:04:00.0");
    fs::write(disk.join("class"), "0x010802\n").unwrap();
    fs::write(disk.join("sriov_totalvfs"), "4\n").unwrap();
    root
}

#[test]
fn a_card_is_read_with_its_functions_and_a_disk_is_none() {
    let root = folder();
    let sysfs = Sysfs::at(root.path());
    assert_eq!(sysfs.cards().unwrap(), ["0000:03:00.0"]);
    let card = sysfs.card("0000:03:00.0").unwrap();
    assert_eq!((card.driver, card.most, card.vfs.len()), (Driver::Igb, 7, 2));
    assert_eq!(card.link, Some("enp3s0".parse().unwrap()));
    assert_eq!(card.vfs[&1].bdf, "0000:03:10.1");
    assert_eq!(card.vfs[&1].driver, None);
}

#[test]
fn what_is_missing_or_no_number_is_named() {
    let root = folder();
    let sysfs = Sysfs::at(root.path());
    let error = sysfs.vf("0000:03:00.0", 5).unwrap_err();
    assert_eq!(error.to_string(), "0000:03:00.0: there is no VF 5");
    let file = root.path().join("devices/0000:03:00.0/sriov_numvfs");
    fs::write(&file, "many\n").unwrap();
    let error = sysfs.card("0000:03:00.0").unwrap_err();
    assert!(error.to_string().ends_with("sriov_numvfs: \"many\" is no number"), "{error}");
    assert!(matches!(sysfs.card("0000:09:00.0"), Err(SysfsError::Read { .. })));
}

#[test]
fn a_driver_that_never_returns_is_waited_for_only_so_long() {
    let root = folder();
    let file = root.path().join("devices/0000:03:00.0/sriov_numvfs");
    fs::remove_file(&file).unwrap();
    // Opening a pipe that nobody reads blocks, as such a driver does.
    nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let begun = Instant::now();
    let patience = Duration::from_millis(50);
    let error = Sysfs::at(root.path()).set_count("0000:03:00.0", 3, patience).unwrap_err();
    assert!(matches!(error, SysfsError::Blocked { .. }), "{error}");
    assert!(begun.elapsed() >= patience);
}

#[test]
fn a_function_without_a_driver_is_kept_from_all_but_vfio() {
    let root = folder();
    let device = root.path().join("devices/0000:03:10.0");
    let drivers = root.path().join("drivers/igbvf");
    fs::create_dir_all(&drivers).unwrap();
    fs::write(drivers.join("unbind"), "").unwrap();
    symlink("../../drivers/igbvf", device.join("driver")).unwrap();
    Sysfs::at(root.path()).unbind("0000:03:10.0").unwrap();
    assert_eq!(fs::read_to_string(device.join("driver_override")).unwrap(), "vfio-pci");
    assert_eq!(fs::read_to_string(drivers.join("unbind")).unwrap(), "0000:03:10.0");
}

#[test]
fn a_function_that_its_driver_has_is_bound_already() {
    let root = folder();
    let device = root.path().join("devices/0000:03:10.0");
    fs::create_dir_all(root.path().join("drivers/vfio-pci")).unwrap();
    symlink("../../drivers/vfio-pci", device.join("driver")).unwrap();
    let sysfs = Sysfs::at(root.path());
    let patience = Duration::from_millis(40);
    sysfs.bind("0000:03:10.0", Some("vfio-pci"), patience).unwrap();
    fs::write(root.path().join("drivers_probe"), "").unwrap();
    let error = sysfs.bind("0000:03:10.1", Some("vfio-pci"), patience).unwrap_err();
    assert_eq!(error.to_string(), "0000:03:10.1: driver vfio-pci did not take it");
    assert_eq!(fs::read_to_string(root.path().join("drivers_probe")).unwrap(), "0000:03:10.1");
}
