//! Layers made here, among them those that try to get out. Needs root, as the supervisor does.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

use proptest::prelude::*;
use tar::{Builder, EntryType, Header};

use super::*;

const BASE: u32 = 0x1000_0000;

/// One entry of a layer.
#[derive(Debug, Clone)]
enum Item {
    Dir(&'static str),
    File(&'static str, &'static str),
    Link(&'static str, &'static str),
    Hard(&'static str, &'static str),
    Device(&'static str),
    Pipe(&'static str),
    /// User id.
    Owned(&'static str, u64),
}
use Item::{Device, Dir, File, Hard, Link, Owned, Pipe};

fn tar(items: &[Item]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for item in items {
        let mut header = Header::new_gnu();
        header.set_mode(0o4755);
        header.set_size(0);
        let (path, kind, content, target) = match *item {
            Dir(path) => (path, EntryType::Directory, "", None),
            File(path, content) => (path, EntryType::Regular, content, None),
            Link(path, target) => (path, EntryType::Symlink, "", Some(target)),
            Hard(path, target) => (path, EntryType::Link, "", Some(target)),
            Device(path) => (path, EntryType::Char, "", None),
            Pipe(path) => (path, EntryType::Fifo, "", None),
            Owned(path, user) => {
                header.set_uid(user);
                (path, EntryType::Regular, "", None)
            }
        };
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        // Past the checks of the crate, which would not write what an attacker does.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        if let Some(target) = target {
            header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        }
        header.set_cksum();
        builder.append(&header, content.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

struct Place {
    outside: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let outside = tempfile::tempdir().unwrap();
        fs::create_dir(outside.path().join("root")).unwrap();
        fs::write(outside.path().join("precious"), "untouched").unwrap();
        Self { outside }
    }

    fn path(&self, below: &str) -> PathBuf {
        self.outside.path().join("root").join(below)
    }

    fn text(&self, below: &str) -> String {
        fs::read_to_string(self.path(below)).unwrap()
    }

    fn apply(&self, items: &[Item]) -> Result<(), UnpackError> {
        self.apply_bytes(&tar(items), Limits::default())
    }

    fn apply_bytes(&self, bytes: &[u8], limits: Limits) -> Result<(), UnpackError> {
        let root = Root::open(&self.path(""), BASE).unwrap();
        layer(bytes, false, &Digest::of(bytes), &root, &mut Room::new(limits), &|| false)
    }

    /// Nothing beside the root was made, changed or removed.
    fn judge(&self) {
        let names: Vec<_> =
            fs::read_dir(self.outside.path()).unwrap().map(|e| e.unwrap()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
        let precious = self.outside.path().join("precious");
        assert_eq!(fs::read_to_string(&precious).unwrap(), "untouched");
        assert_eq!(fs::metadata(&precious).unwrap().nlink(), 1);
        assert!(!Path::new("/escaped").exists());
    }
}

#[test]
fn files_belong_to_the_containers_ids_and_lose_set_user_id() {
    let place = Place::new();
    place.apply(&[Dir("bin"), File("bin/app", "x"), Owned("bin/owned", 1000)]).unwrap();
    let app = fs::metadata(place.path("bin/app")).unwrap();
    assert_eq!((app.uid(), app.gid(), app.mode() & 0o7777), (BASE, BASE, 0o755));
    assert_eq!(fs::metadata(place.path("bin/owned")).unwrap().uid(), BASE + 1000);
    let error = place.apply(&[Owned("far", 70_000)]).unwrap_err();
    assert_eq!(error.to_string(), "\"far\" of the layer belongs to id 70000: expected below 65536");
}

#[test]
fn upper_layers_replace_hide_and_keep() {
    let place = Place::new();
    let lower =
        [Dir("d"), File("d/a", "1"), File("d/b", "1"), File("x", "1"), Dir("y"), File("y/z", "1")];
    place.apply(&lower).unwrap();
    place.apply(&[File("d/.wh.a", ""), File("x", "2"), File("y", "now a file")]).unwrap();
    assert!(!place.path("d/a").exists());
    assert_eq!(
        (place.text("d/b"), place.text("x"), place.text("y")),
        ("1".into(), "2".into(), "now a file".into())
    );
    // Opaque: what lower layers have goes, what this one brings stays, wherever the mark stands.
    place
        .apply(&[
            File("d/new", "3"),
            Dir("d/deep"),
            File("d/deep/er", "3"),
            File("d/.wh..wh..opq", ""),
        ])
        .unwrap();
    assert!(!place.path("d/b").exists());
    assert_eq!((place.text("d/new"), place.text("d/deep/er")), ("3".into(), "3".into()));
}

#[test]
fn links_lead_within_the_image_absolute_ones_too() {
    let place = Place::new();
    place
        .apply(&[Dir("run"), Dir("var"), Link("var/run", "/run"), File("var/run/pid", "7")])
        .unwrap();
    assert_eq!(place.text("run/pid"), "7");
    place.apply(&[Hard("run/second", "var/run/pid"), File("usr/lib/made", "for it")]).unwrap();
    assert_eq!(
        (place.text("run/second"), place.text("usr/lib/made")),
        ("7".into(), "for it".into())
    );
    place.judge();
}

#[test]
fn no_path_and_no_link_leads_out() {
    let attempts: [&[Item]; 9] = [
        &[File("../escaped", "x")],
        &[File("a/../../escaped", "x")],
        &[Link("up", ".."), File("up/escaped", "x")],
        &[Link("up", "../../../../../../.."), File("up/escaped", "x")],
        &[Link("abs", "/"), File("abs/escaped", "x")],
        &[Link("out", "../precious"), File("out", "changed")],
        &[Link("up", ".."), File("up/.wh.precious", "")],
        &[Link("up", ".."), File("up/.wh..wh..opq", "")],
        &[Link("up", ".."), Hard("mine", "up/precious")],
    ];
    for attempt in attempts {
        let place = Place::new();
        // Refused or kept inside: both are fine.
        let result = place.apply(attempt);
        place.judge();
        assert!(!matches!(result, Err(UnpackError::Digest { .. })), "{attempt:?}");
    }
    for path in ["../escaped", "a/../../escaped", "/../escaped"] {
        let refused = Place::new().apply(&[File(path, "x")]);
        assert!(matches!(refused, Err(UnpackError::Path(_))), "{path}");
    }
}

#[test]
fn a_whiteout_of_the_directory_itself_is_refused() {
    for name in [".wh.", ".wh..", ".wh...", "d/.wh..."] {
        let place = Place::new();
        assert!(place.apply(&[Dir("d"), File(name, "")]).is_err(), "{name}");
        place.judge();
    }
}

#[test]
fn devices_and_pipes_of_an_image_are_left_out() {
    let place = Place::new();
    place.apply(&[Dir("dev"), Device("dev/mem"), Pipe("dev/pipe"), File("dev/f", "")]).unwrap();
    let entries: Vec<_> = fs::read_dir(place.path("dev")).unwrap().map(|e| e.unwrap()).collect();
    assert_eq!(entries.len(), 1);
    assert!(!entries[0].file_type().unwrap().is_char_device());
}

#[test]
fn more_than_the_limits_is_refused() {
    let place = Place::new();
    let items = [File("a", "0123456789"), File("b", "0123456789")];
    let limits = Limits { entries: 1, ..Limits::default() };
    let error = place.apply_bytes(&tar(&items), limits).unwrap_err();
    assert_eq!(error.to_string(), "image has more than 1 entries when unpacked");
    let limits = Limits { unpacked_bytes: 5000, ..Limits::default() };
    let error = place.apply_bytes(&tar(&items), limits).unwrap_err();
    assert_eq!(
        error.to_string(),
        "image has more than 5000 bytes when unpacked",
        "a file takes a page"
    );
}

/// A layer that is `GzEncoder`ed: `start`, then so many MiB of zeros.
fn bomb(start: &[u8], mib: usize) -> (Vec<u8>, Digest) {
    let plain = [start, &vec![0; mib << 20]].concat();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    (gzip.finish().unwrap(), Digest::of(&plain))
}

#[test]
fn a_small_layer_that_unpacks_to_much_is_refused_wherever_the_bytes_are() {
    let header = |kind: EntryType, size: u64| {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(0o755);
        header.set_cksum();
        header.as_bytes().to_vec()
    };
    let headers = "image has more than 1048576 bytes of headers for an entry when unpacked";
    let bytes = "image has more than 8388608 bytes when unpacked";
    for (name, start, refusal) in [
        ("long name", header(EntryType::GNULongName, 30 << 20), headers),
        ("extension", header(EntryType::XHeader, 30 << 20), headers),
        ("behind the end", vec![0; 1024], headers),
        ("device with data", header(EntryType::Char, 30 << 20), bytes),
        ("directory with data", header(EntryType::XGlobalHeader, 30 << 20), bytes),
    ] {
        let place = Place::new();
        let root = Root::open(&place.path(""), BASE).unwrap();
        let (packed, digest) = bomb(&start, 32);
        let mut room = Room::new(Limits { unpacked_bytes: 8 << 20, ..Limits::default() });
        let result = layer(&packed[..], true, &digest, &root, &mut room, &|| false);
        assert_eq!(result.unwrap_err().to_string(), refusal, "{name}");
    }
}

#[test]
fn directories_that_an_image_does_not_list_count_as_entries() {
    let place = Place::new();
    let limits = Limits { entries: 10, ..Limits::default() };
    place.apply_bytes(&tar(&[File("a/b/c/d/e/f/g/h/i", "")]), limits).unwrap();
    let error = place.apply_bytes(&tar(&[File("b/1/2/3/4/5/6/7/8/9/f", "")]), limits).unwrap_err();
    assert_eq!(error.to_string(), "image has more than 10 entries when unpacked");
}

#[test]
fn other_bytes_than_the_configuration_names_are_refused_also_behind_the_end() {
    let place = Place::new();
    let root = Root::open(&place.path(""), BASE).unwrap();
    let bytes = tar(&[File("a", "x")]);
    let longer = [&bytes[..], b"more"].concat();
    let mut room = Room::new(Limits::default());
    let error = layer(&longer[..], false, &Digest::of(&bytes), &root, &mut room, &|| false);
    assert!(matches!(error, Err(UnpackError::Digest { .. })));
}

#[test]
fn gzip_is_unpacked_and_cancelling_stops() {
    let place = Place::new();
    let plain = tar(&[File("a", "x")]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    let packed = gzip.finish().unwrap();
    let root = Root::open(&place.path(""), BASE).unwrap();
    let digest = Digest::of(&plain);
    let mut room = Room::new(Limits::default());
    layer(&packed[..], true, &digest, &root, &mut room, &|| false).unwrap();
    assert_eq!(place.text("a"), "x");
    let stopped = layer(&packed[..], true, &digest, &root, &mut room, &|| true);
    assert!(matches!(stopped, Err(UnpackError::Cancelled)));
}

const NAMES: [&str; 8] = ["a", "b", "a/b", "b/a", "../a", "a/../../precious", "/a", "a/.wh.b"];
const TARGETS: [&str; 6] = ["..", "/", "a", "../precious", "b/..", "../../.."];

fn items() -> impl Strategy<Value = Vec<Item>> {
    let item = (0..5, 0..NAMES.len(), 0..TARGETS.len()).prop_map(|(kind, name, target)| {
        let (name, target) = (NAMES[name], TARGETS[target]);
        match kind {
            0 => Dir(name),
            1 => File(name, "changed"),
            2 => Link(name, target),
            3 => Hard(name, target),
            _ => File(if name == "a" { "a/.wh..wh..opq" } else { name }, ""),
        }
    });
    prop::collection::vec(item, 0..8)
}

proptest! {
    #[test]
    fn no_layers_of_any_kind_change_anything_outside(layers in prop::collection::vec(items(), 1..4)) {
        let place = Place::new();
        for items in layers {
            let _ = place.apply(&items);
            place.judge();
        }
    }

    #[test]
    fn any_bytes_are_unpacked_or_refused(
        bytes in prop::collection::vec(any::<u8>(), 0..1500),
        at in 0_usize..1024,
        with in any::<u8>(),
    ) {
        let place = Place::new();
        let _ = place.apply_bytes(&bytes, Limits::default());
        let mut damaged = tar(&[Dir("d"), File("d/a", "x")]);
        if let Some(byte) = damaged.get_mut(at) {
            *byte = with;
        }
        let _ = place.apply_bytes(&damaged, Limits::default());
        place.judge();
    }
}
