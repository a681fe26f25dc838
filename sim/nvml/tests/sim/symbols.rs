//! What the dynamic linker finds in the library.

use std::collections::BTreeSet;

use goblin::elf::Elf;

#[test]
fn every_function_that_clients_look_up_is_exported_and_no_other() {
    let bytes = std::fs::read(crate::common::library()).unwrap();
    let elf = Elf::parse(&bytes).unwrap();
    let exported: BTreeSet<&str> = elf
        .dynsyms
        .iter()
        .filter(|symbol| symbol.is_function() && !symbol.is_import())
        .filter_map(|symbol| elf.dynstrtab.get_at(symbol.st_name))
        .filter(|name| name.starts_with("nvml"))
        .collect();
    let listed: BTreeSet<&str> = include_str!("../../data/exported-symbols.txt").lines().collect();
    assert_eq!(exported, listed);
    assert_eq!(listed.len(), 431);
}

#[test]
fn the_library_bears_the_name_that_programs_are_linked_with() {
    let bytes = std::fs::read(crate::common::library()).unwrap();
    assert_eq!(Elf::parse(&bytes).unwrap().soname, Some("libnvidia-ml.so.1"));
}
