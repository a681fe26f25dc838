use std::io;

use bulkhead_api::lease::HeldDevice;
use oci_spec::runtime::Spec as Oci;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// As NVIDIA's generator writes it, but for its hooks.
const NVIDIA: &str = r#"{
    "cdiVersion": "0.5.0",
    "kind": "nvidia.com/gpu",
    "devices": [
        { "name": "0", "containerEdits": { "deviceNodes": [
            { "path": "/dev/nvidia0" },
            { "path": "/dev/dri/card1", "hostPath": "/dev/dri/card1", "permissions": "rwm" }
        ] } },
        { "name": "1", "containerEdits": { "deviceNodes": [{ "path": "/dev/nvidia1" }] } },
        { "name": "GPU-4cf8db2d-06c0-7d70-1a51-e59b25b2c16c", "containerEdits": {
            "deviceNodes": [
                { "path": "/dev/nvidia0", "hostPath": "/dev/nvidia1", "type": "c", "major": 195, "minor": 1 }
            ] } }
    ],
    "containerEdits": {
        "env": ["NVIDIA_VISIBLE_DEVICES=void"],
        "deviceNodes": [
            { "path": "/dev/nvidiactl", "permissions": "r", "fileMode": 438, "uid": 0, "gid": 44 }
        ],
        "mounts": [
            { "hostPath": "/usr/lib/libcuda.so.550", "containerPath": "/usr/lib/libcuda.so.550",
              "options": ["ro", "nosuid", "nodev", "rbind", "rprivate"] },
            { "hostPath": "/run/nvidia-persistenced/socket", "containerPath": "/run/nvidia-persistenced/socket",
              "options": ["rw", "nosuid", "nodev", "rbind", "rprivate", "noexec"] }
        ]
    }
}"#;

fn file(folder: usize, path: &str, text: &str) -> File {
    File { folder, path: path.into(), text: Ok(text.as_bytes().to_vec()) }
}

fn nvidia() -> Vec<File> {
    vec![file(0, "/etc/cdi/nvidia.json", NVIDIA)]
}

fn named(names: &[&str]) -> BTreeSet<Name> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

/// The nodes of a host with two GPUs.
fn look(path: &Path) -> io::Result<Numbers> {
    let (major, minor) = match path.to_str().unwrap() {
        "/dev/nvidia0" => (195, 0),
        "/dev/nvidia1" => (195, 1),
        "/dev/nvidiactl" => (195, 255),
        "/dev/dri/card1" => (226, 1),
        _ => return Err(io::ErrorKind::NotFound.into()),
    };
    Ok(Numbers { kind: 'c', major, minor })
}

fn config() -> Oci {
    serde_json::from_value(json!({
        "ociVersion": "1.0.2",
        "root": { "path": "rootfs" },
        "process": {
            "args": ["/bin/app"], "cwd": "/", "user": { "uid": 7, "gid": 7 },
            "env": ["PATH=/bin", "NVIDIA_VISIBLE_DEVICES=all"],
        },
        "mounts": [{ "destination": "/run", "type": "tmpfs", "source": "tmpfs" }],
        "linux": {},
    }))
    .unwrap()
}

fn applied(names: &[&str]) -> Value {
    let mut config = config();
    apply(&mut config, &edits(&nvidia(), &named(names)).unwrap(), &look).unwrap();
    serde_json::to_value(config).unwrap()
}

/// Why a container does not get the only device of a spec with these edits.
fn refusal(edit: &Value) -> String {
    let spec = json!({
        "cdiVersion": "1.0.0", "kind": "vendor.com/net", "containerEdits": edit,
        "devices": [{ "name": "a", "containerEdits": {} }],
    });
    let files = [file(0, "/etc/cdi/v.json", &spec.to_string())];
    match edits(&files, &named(&["vendor.com/net=a"])) {
        Err(error) => error.to_string(),
        Ok(edits) => panic!("{edit} is taken: {edits:?}"),
    }
}

#[test]
fn a_held_device_is_a_vendors_if_its_id_is_a_qualified_name() {
    let held = |id: &str| HeldDevice { kind: "gpu".to_owned(), id: id.to_owned() };
    let ids =
        ["nvidia.com/gpu=0", "0000:c1:00.3", "nvidia.com/gpu", "=0", "a/b/c=0", "a/b=", "a/b=.."];
    let holding = Holding { devices: ids.map(held).to_vec(), ..Holding::default() };
    assert_eq!(names(&holding), named(&["nvidia.com/gpu=0"]));
}

#[test]
fn a_gpu_comes_with_its_node_and_what_all_of_its_kind_need() {
    let config = applied(&["nvidia.com/gpu=0"]);
    assert_eq!(
        config["linux"]["devices"],
        json!([
            { "path": "/dev/nvidiactl", "type": "c", "major": 195, "minor": 255, "fileMode": 438, "uid": 0, "gid": 44 },
            { "path": "/dev/nvidia0", "type": "c", "major": 195, "minor": 0 },
            { "path": "/dev/dri/card1", "type": "c", "major": 226, "minor": 1 },
        ])
    );
    let env = json!(["PATH=/bin", "NVIDIA_VISIBLE_DEVICES=void"]);
    assert_eq!(config["process"]["env"], env, "in place of the image's");
    let mounts: Vec<String> = config["mounts"].as_array().unwrap()[1..]
        .iter()
        .map(|m| format!("{} {}", m["destination"], m["options"]))
        .collect();
    assert_eq!(
        mounts,
        [
            r#""/usr/lib/libcuda.so.550" ["bind","nosuid","nodev","ro"]"#,
            r#""/run/nvidia-persistenced/socket" ["bind","nosuid","nodev","rw","noexec"]"#,
        ]
    );
}

#[test]
fn what_a_kind_needs_is_given_once_however_many_devices_there_are() {
    let config = applied(&["nvidia.com/gpu=0", "nvidia.com/gpu=1"]);
    let devices = config["linux"]["devices"].as_array().unwrap();
    let paths: Vec<&str> = devices.iter().map(|device| device["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["/dev/nvidiactl", "/dev/nvidia0", "/dev/dri/card1", "/dev/nvidia1"]);
    assert_eq!(config["mounts"].as_array().unwrap().len(), 3);
}

#[test]
fn a_node_at_another_path_is_bound_there() {
    let config = applied(&["nvidia.com/gpu=GPU-4cf8db2d-06c0-7d70-1a51-e59b25b2c16c"]);
    let mounts = config["mounts"].as_array().unwrap();
    let bound = mounts.iter().find(|mount| mount["source"] == "/dev/nvidia1").unwrap();
    assert_eq!(bound["destination"], "/dev/nvidia0");
    assert_eq!(bound["options"], json!(["bind", "rw", "nosuid", "noexec"]));
}

#[test]
fn a_unit_may_use_the_nodes_by_number_and_make_none() {
    let edits = edits(&nvidia(), &named(&["nvidia.com/gpu=0"])).unwrap();
    let allowed = allow(&edits, &look).unwrap();
    let rows = [("/dev/char/195:255", "r"), ("/dev/char/195:0", "rw"), ("/dev/char/226:1", "rw")];
    assert_eq!(allowed, rows.map(|(device, access)| (device.to_owned(), access.to_owned())));
}

#[test]
fn a_node_that_the_host_does_not_have_as_the_spec_says_is_refused() {
    let why = |node: Value| {
        let spec = json!({
            "cdiVersion": "0.7.0", "kind": "v/c",
            "devices": [{ "name": "a", "containerEdits": { "deviceNodes": [node] } }],
        });
        let edits = edits(&[file(0, "v.json", &spec.to_string())], &named(&["v/c=a"])).unwrap();
        let mut config = config();
        let refused = apply(&mut config, &edits, &look).unwrap_err().to_string();
        assert_eq!(allow(&edits, &look).unwrap_err().to_string(), refused);
        refused
    };
    assert_eq!(
        why(json!({ "path": "/dev/nvidia0", "type": "b", "major": 8, "minor": 1 })),
        "device node /dev/nvidia0: it is c 195:0, its CDI spec says b 8:1"
    );
    assert!(why(json!({ "path": "/dev/gone" })).starts_with("device node /dev/gone: "));
}

#[test]
fn what_would_act_on_the_host_is_refused_by_name() {
    for (edit, field) in [
        (
            json!({ "hooks": [{ "hookName": "createContainer", "path": "/usr/bin/nvidia-cdi-hook" }] }),
            "hooks",
        ),
        (json!({ "netDevices": [{ "hostInterfaceName": "eth0", "name": "eth0" }] }), "netDevices"),
        (json!({ "intelRdt": { "closID": "/" } }), "intelRdt"),
    ] {
        let why = refusal(&edit);
        assert!(why.starts_with(&format!("CDI spec /etc/cdi/v.json: {field}: ")), "{why}");
    }
}

#[test]
fn nothing_of_the_host_is_reached_by_a_path_that_leads_elsewhere() {
    for path in [
        "",
        "/",
        "usr/lib",
        "../etc",
        "/usr/../etc",
        "/usr/./lib",
        "/..",
        "/proc",
        "/proc/sys",
        "//sys/fs",
        "/dev/sda",
        "/sys",
        "/a\0b",
    ] {
        for (host, container) in [(path, "/opt/x"), ("/opt/x", path)] {
            let mount =
                json!({ "hostPath": host, "containerPath": container, "options": ["bind"] });
            refusal(&json!({ "mounts": [mount] }));
        }
    }
    for path in ["", "/", "/dev", "dev/x", "/dev/../etc/shadow", "/devil", "/etc/shadow"] {
        refusal(&json!({ "deviceNodes": [{ "path": path }] }));
        if !path.is_empty() {
            refusal(&json!({ "deviceNodes": [{ "path": "/dev/x", "hostPath": path }] }));
        }
    }
    for own in ["/dev/null", "/dev/pts/0", "/dev/shm"] {
        refusal(&json!({ "deviceNodes": [{ "path": own, "hostPath": "/dev/x" }] }));
    }
}

#[test]
fn an_edit_that_is_not_understood_is_refused() {
    for edit in [
        json!({ "env": ["NOVALUE"] }),
        json!({ "env": ["=x"] }),
        json!({ "deviceNodes": [{ "path": "/dev/x", "type": "p" }] }),
        json!({ "deviceNodes": [{ "path": "/dev/x", "permissions": "x" }] }),
        json!({ "deviceNodes": [{ "path": "/dev/x", "uid": 65536 }] }),
        json!({ "mounts": [{ "hostPath": "/a", "containerPath": "/a", "type": "tmpfs" }] }),
        json!({ "mounts": [{ "hostPath": "/a", "containerPath": "/a", "options": ["suid"] }] }),
        json!({ "additionalGids": [1_000_000] }),
        json!({ "unheardOf": [] }),
    ] {
        refusal(&edit);
    }
}

#[test]
fn groups_are_added_but_for_the_first() {
    let spec = json!({
        "cdiVersion": "0.7.0", "kind": "v/c", "devices": [{ "name": "a" }],
        "containerEdits": { "additionalGids": [0, 44, 109, 44] },
    });
    let edits = edits(&[file(0, "v.json", &spec.to_string())], &named(&["v/c=a"])).unwrap();
    let mut config = config();
    apply(&mut config, &edits, &look).unwrap();
    let config = serde_json::to_value(config).unwrap();
    assert_eq!(config["process"]["user"]["additionalGids"], json!([44, 109]));
}

#[test]
fn a_spec_made_since_the_boot_comes_before_the_images_and_two_in_one_place_are_a_conflict() {
    let spec = |name: &str| {
        json!({
            "cdiVersion": "0.6.0", "kind": "v/c", "annotations": { "a": "b" },
            "devices": [{ "name": "a", "containerEdits": { "env": [format!("FROM={name}")] } }],
        })
        .to_string()
    };
    let mut files =
        vec![file(0, "/etc/cdi/v.json", &spec("image")), file(1, "/run/cdi/v.json", &spec("boot"))];
    let names = named(&["v/c=a"]);
    assert_eq!(edits(&files, &names).unwrap().env, ["FROM=boot"]);
    files.push(file(1, "/run/cdi/w.json", &spec("other")));
    assert_eq!(
        edits(&files, &names).unwrap_err().to_string(),
        "device v/c=a is in /run/cdi/v.json and in /run/cdi/w.json: which one counts is not told"
    );
}

#[test]
fn a_device_in_no_spec_is_named_with_the_specs_that_could_not_be_read() {
    let mut files = nvidia();
    files.push(file(1, "/run/cdi/new.json", &NVIDIA.replace("0.5.0", "1.1.0")));
    assert!(edits(&files, &named(&["nvidia.com/gpu=0"])).is_ok(), "a broken one holds up no other");
    assert_eq!(
        edits(&files, &named(&["nvidia.com/gpu=7"])).unwrap_err().to_string(),
        "device nvidia.com/gpu=7 is in no CDI spec (*.json) of /etc/cdi and /run/cdi; \
         not read: /run/cdi/new.json: its cdiVersion \"1.1.0\" is not known"
    );
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>, name in "\\PC{0,40}") {
        let file = File { folder: 0, path: "x.json".into(), text: Ok(bytes) };
        prop_assert!(edits(&[file], &named(&["v/c=a"])).is_err());
        if let Ok(parsed) = name.parse::<Name>() {
            prop_assert_eq!(parsed.to_string(), name);
        }
    }

    /// Whatever a spec says of paths, nothing is bound over or from where it must not be.
    #[test]
    fn any_paths_are_plain_and_not_the_kernels_or_refused(
        host in "(/|\\.|proc|dev|sys|a){0,8}", container in "(/|\\.|proc|dev|sys|a){0,8}",
    ) {
        let spec = json!({
            "cdiVersion": "0.5.0", "kind": "v/c", "devices": [{ "name": "a" }],
            "containerEdits": {
                "mounts": [{ "hostPath": host, "containerPath": container }],
            },
        });
        let files = [file(0, "v.json", &spec.to_string())];
        if let Ok(edits) = edits(&files, &named(&["v/c=a"])) {
            for path in [&edits.mounts[0].source, &edits.mounts[0].destination] {
                let parts: Vec<&str> = path.iter().map(|part| part.to_str().unwrap()).collect();
                prop_assert!(parts.len() > 1 && parts[0] == "/");
                prop_assert!(!["proc", "sys", "dev"].contains(&parts[1]), "{}", path.display());
                prop_assert!(!parts.contains(&"..") && !parts.contains(&"."));
            }
            prop_assert!(!edits.mounts[0].writable);
        }
    }
}
