//! GPUs and slices against the simulated NVML: the whole class, as the supervisor uses it.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test ends where something is not as it should be"
)]

mod cut;
mod sim;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bulkhead_api::gpu::HeldGpu;
use bulkhead_api::resource::Resource;
use bulkhead_supervisor::class::{Attached, Class as _, ClassError, Order};
use bulkhead_supervisor::gpu::class::Gpus;
use bulkhead_supervisor::gpu::class::record::Stage;
use bulkhead_supervisor::gpu::driver::Driver;
use bulkhead_supervisor::gpu::nvml::{Code, GpuError, Nvml};
use bulkhead_supervisor::gpu::scrub::ByDriver;
use bulkhead_supervisor::gpu::{cdi, inventory};
use nvidia_ml::model::{Failure, Process, ProcessKind};
use serde_json::Value;

use self::cut::Cut;
use self::sim::{Sim, lease, on, order, slice};

const H100: &[&str] = &["h100-80"];

/// `3g.40gb` in the upper half.
fn upper(sim: &Sim) -> HeldGpu {
    slice(&sim.bdf(0), "3g.40gb", 9, 4, 4)
}

/// `1g.10gb` at the beginning.
fn first(sim: &Sim) -> HeldGpu {
    slice(&sim.bdf(0), "1g.10gb", 19, 0, 1)
}

fn given(class: &Gpus, order: &Order) -> Attached {
    class.attach(order).unwrap();
    class.observe(order).unwrap()
}

fn process(pid: u32) -> Process {
    Process {
        pid,
        name: "cuda".to_owned(),
        kind: ProcessKind::Compute,
        memory_mib: 512,
        lock: None,
    }
}

#[test]
fn the_inventory_has_geometry_and_slices_of_each_gpu() {
    on("the_inventory_has_geometry_and_slices_of_each_gpu", &["h100-80", "l40s"], |sim| {
        assert_eq!(given(&sim.class(), &order("a", &upper(sim))), Attached::Yes);
        let mut problems = Vec::new();
        let gpus = inventory::observe(&sim.nvml, &mut problems);
        assert_eq!(problems, Vec::<String>::new());
        assert_eq!(gpus.len(), 2);
        let geometry = gpus[0].geometry.as_ref().unwrap();
        assert_eq!(geometry.grid(), 8);
        let profile = geometry.named(&"3g.40gb".parse().unwrap()).unwrap();
        assert_eq!((profile.id, profile.size), (9, 4));
        assert_eq!(gpus[0].mig, Some(true));
        assert_eq!(gpus[0].instances[0].id, 2);
        assert_eq!((gpus[1].mig, &gpus[1].geometry), (None, &None));
    });
}

#[test]
fn a_slice_is_made_given_and_taken_back_with_proof() {
    on("a_slice_is_made_given_and_taken_back_with_proof", H100, |sim| {
        let (class, held) = (sim.class(), upper(sim));
        let order = order("a", &held);
        assert_eq!(class.observe(&order).unwrap(), Attached::No);
        assert_eq!(given(&class, &order), Attached::Yes);
        let gpu = sim.gpu(0);
        assert_eq!((gpu.instances[0].start, gpu.instances[0].id), (4, 2));
        assert_eq!(gpu.instances[0].compute.len(), 1);
        class.attach(&order).unwrap();
        assert_eq!(sim.gpu(0), gpu, "what is there is not made again");

        let spec = std::fs::read(cdi::path(&sim.paths.root, &held)).unwrap();
        let spec: Value = serde_json::from_slice(&spec).unwrap();
        let nodes = spec["devices"][0]["containerEdits"]["deviceNodes"].as_array().unwrap();
        let nodes: Vec<&str> = nodes.iter().map(|node| node["path"].as_str().unwrap()).collect();
        let caps = [None, Some(0)].map(|compute| {
            let minor = nvidia_ml::access::capability_minor(0, 2, compute);
            format!("/dev/nvidia-caps/nvidia-cap{minor}")
        });
        assert_eq!(
            nodes,
            ["/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia0", &caps[0], &caps[1]]
        );

        sim.mark(0, 5, b"secret");
        let erased = class.erase(&order).unwrap();
        assert_eq!(erased.methods, ["destroyInstance", "overwrite"]);
        assert_eq!(erased.weaker, None);
        assert_eq!(erased.evidence.len(), 2);
        assert_eq!(sim.gpu(0).instances, []);
        assert_eq!(sim.marked(0, 5, 6), [0; 6]);
        assert!(!cdi::path(&sim.paths.root, &held).exists());
        assert_eq!(class.found().unwrap(), []);
        class.erase(&order).unwrap();
    });
}

#[test]
fn a_neighbours_slice_is_never_touched() {
    on("a_neighbours_slice_is_never_touched", H100, |sim| {
        let (class, mine, other) = (sim.class(), upper(sim), first(sim));
        class.attach(&order("neighbour", &other)).unwrap();
        sim.mark(0, 0, b"neighbour");
        let before = sim.gpu(0).instances[0].clone();
        // Cut at every point of giving and of taking back, and gone on with by a supervisor that starts anew.
        for points in 0..16 {
            let cut = Cut::after(Arc::clone(&sim.nvml) as Arc<dyn Driver>, points);
            let class = sim.class_over(cut);
            if class.attach(&order("a", &mine)).is_ok() {
                let _ = class.erase(&order("a", &mine));
            }
            let again = sim.class();
            let known = again.given().unwrap().of(&lease("a"), &mine).map(|given| given.stage);
            if known == Some(Stage::Erasing) {
                assert!(again.attach(&order("a", &mine)).is_err(), "not before it is clean");
            } else {
                assert_eq!(given(&again, &order("a", &mine)), Attached::Yes, "{points}");
                sim.mark(0, 4, b"mine");
            }
            again.erase(&order("a", &mine)).unwrap();
            let gpu = sim.gpu(0);
            assert_eq!(gpu.instances, std::slice::from_ref(&before), "{points}");
            assert_eq!(sim.marked(0, 0, 9), b"neighbour", "{points}");
            assert_eq!(sim.marked(0, 4, 4), [0; 4], "{points}");
            let kept = again.given().unwrap();
            assert_eq!(kept.gpus.len(), 1);
            assert_eq!((kept.gpus[0].generation, kept.gpus[0].stage), (1, Stage::Made));
            assert_eq!(
                again.found().unwrap(),
                [(lease("neighbour"), Resource::Gpu(other.clone()))]
            );
        }
    });
}

#[test]
fn a_place_that_is_somebodys_is_refused_whoever_has_it() {
    on("a_place_that_is_somebodys_is_refused_whoever_has_it", H100, |sim| {
        let class = sim.class();
        class.attach(&order("a", &upper(sim))).unwrap();
        let over = slice(&sim.bdf(0), "1g.10gb", 19, 5, 1);
        let error = class.attach(&order("b", &over)).unwrap_err().to_string();
        assert!(error.contains("slice 3g.40gb at 4:4") && error.contains("acme/a"), "{error}");
        let whole = HeldGpu { gpu: sim.bdf(0), slice: None };
        assert!(class.attach(&order("b", &whole)).is_err());
        assert!(class.erase(&order("b", &over)).is_err());
        assert_eq!(sim.gpu(0).instances.len(), 1);

        // Of another program, and no record knows it: nobody's, and found as such.
        sim.change(|machine| machine.gpu_mut(0)?.create_instance(19, Some((0, 1))).map(drop));
        let error = class.attach(&order("b", &first(sim))).unwrap_err().to_string();
        assert!(error.contains("no record knows whose it is"), "{error}");
        let found = class.found().unwrap();
        let (nobody, stray) = found.iter().find(|(id, _)| *id != lease("a")).unwrap();
        assert_eq!(
            (nobody.to_string().as_str(), stray),
            ("bulkhead/lost", &Resource::Gpu(first(sim)))
        );
        let mut back = order("b", &first(sim));
        back.lease = nobody.clone();
        class.erase(&back).unwrap();
        assert_eq!(sim.gpu(0).instances.len(), 1);
        assert_eq!(given(&class, &order("b", &first(sim))), Attached::Yes);
    });
}

#[test]
fn what_fails_halfway_is_rolled_back_and_done_later() {
    on("what_fails_halfway_is_rolled_back_and_done_later", H100, |sim| {
        let (class, order) = (sim.class(), order("a", &upper(sim)));
        let function = "nvmlGpuInstanceCreateComputeInstance".to_owned();
        let code = 23;
        sim.change(|machine| {
            machine.failures.push(Failure { function, code, after: 0, calls: 1 });
            Ok(())
        });
        let error = class.attach(&order).unwrap_err().to_string();
        assert!(error.contains("no room there"), "{error}");
        assert_eq!(sim.gpu(0).instances, [], "the GPU instance is not left behind");
        assert_eq!(given(&class, &order), Attached::Yes);
    });
}

#[test]
fn slices_that_a_driver_reload_took_are_made_again_with_another_generation() {
    on("slices_that_a_driver_reload_took_are_made_again_with_another_generation", H100, |sim| {
        let (class, order) = (sim.class(), order("a", &upper(sim)));
        class.attach(&order).unwrap();
        let uuid = |sim: &Sim| {
            let found = sim.nvml.instances(&sim.bdf(0)).unwrap();
            found[0].compute[0].uuid.clone()
        };
        let before = (uuid(sim), class.given().unwrap().gpus[0].generation);
        sim.change(|machine| {
            machine.reload_driver();
            Ok(())
        });
        // The library notices at the first call, and is opened anew for the next.
        let seen = class.observe(&order).or_else(|_| class.observe(&order)).unwrap();
        assert_eq!(seen, Attached::No);
        assert_eq!(given(&class, &order), Attached::Yes);
        let after = (uuid(sim), class.given().unwrap().gpus[0].generation);
        assert_eq!(before.0, after.0, "NVML names the new slice as the old one");
        assert!(after.1 > before.1);
    });
}

#[test]
fn a_gpu_that_is_lost_fails_alone() {
    on("a_gpu_that_is_lost_fails_alone", &["h100-80", "h100-80"], |sim| {
        let class = sim.class();
        let second = slice(&sim.bdf(1), "3g.40gb", 9, 4, 4);
        class.attach(&order("a", &upper(sim))).unwrap();
        class.attach(&order("b", &second)).unwrap();
        sim.change(|machine| {
            machine.gpus[0].faults.lost = true;
            Ok(())
        });
        let error = class.observe(&order("a", &slice(&second.gpu.clone(), "3g.40gb", 9, 4, 4)));
        assert_eq!(error.unwrap(), Attached::No, "another lease's");
        assert_eq!(class.observe(&order("b", &second)).unwrap(), Attached::Yes);
        class.erase(&order("b", &second)).unwrap();
        class.found().unwrap();
        let mut problems = Vec::new();
        let gpus = inventory::observe(&sim.nvml, &mut problems);
        assert_eq!(gpus.len(), 1);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].contains("is lost"), "{problems:?}");
    });
}

#[test]
fn a_slice_in_use_is_not_taken_and_the_process_is_named() {
    on("a_slice_in_use_is_not_taken_and_the_process_is_named", H100, |sim| {
        let (class, order) = (sim.class(), order("a", &upper(sim)));
        class.attach(&order).unwrap();
        sim.change(|machine| machine.gpu_mut(0)?.add_process(Some((2, 0)), process(4242)));
        let error = class.erase(&order).unwrap_err().to_string();
        assert!(error.contains("process 4242 uses it"), "{error}");
        assert_eq!(sim.gpu(0).instances.len(), 1);
        sim.change(|machine| {
            machine.gpu_mut(0)?.retain_processes(|_| false);
            Ok(())
        });
        class.erase(&order).unwrap();
    });
}

#[test]
fn a_mode_that_waits_says_for_what() {
    on("a_mode_that_waits_says_for_what", &["a100-40"], |sim| {
        let held = slice(&sim.bdf(0), "3g.20gb", 9, 4, 4);
        sim.change(|machine| machine.gpu_mut(0)?.add_process(None, process(77)));
        let error = sim.class().attach(&order("a", &held)).unwrap_err().to_string();
        assert!(error.contains("process 77 uses the GPU"), "{error}");
        sim.change(|machine| {
            let gpu = machine.gpu_mut(0)?;
            gpu.retain_processes(|_| false);
            gpu.platform = nvidia_ml::model::Platform::Passthrough;
            Ok(())
        });
        let error = sim.class().attach(&order("a", &held)).unwrap_err().to_string();
        assert!(error.contains("switching MIG on waits for"), "{error}");
        sim.change(|machine| machine.gpu_mut(0)?.reset());
        assert_eq!(given(&sim.class(), &order("a", &held)), Attached::Yes);
    });
}

#[test]
fn a_whole_gpu_is_given_where_nobody_has_a_part_of_it() {
    on("a_whole_gpu_is_given_where_nobody_has_a_part_of_it", H100, |sim| {
        let (class, whole) = (sim.class(), HeldGpu { gpu: sim.bdf(0), slice: None });
        class.attach(&order("a", &upper(sim))).unwrap();
        assert!(class.attach(&order("b", &whole)).is_err());
        class.erase(&order("a", &upper(sim))).unwrap();
        assert_eq!(given(&class, &order("b", &whole)), Attached::Yes);
        assert_eq!(sim.gpu(0).mig_mode().unwrap(), (false, false), "MIG is off for it");
        sim.mark(0, 3, b"secret");
        assert!(class.attach(&order("a", &upper(sim))).is_err());
        class.erase(&order("b", &whole)).unwrap();
        assert_eq!(sim.marked(0, 3, 6), [0; 6]);
        assert_eq!(given(&class, &order("a", &upper(sim))), Attached::Yes);
    });
}

#[test]
fn without_proof_a_slice_is_clean_only_where_the_site_says_so() {
    on("without_proof_a_slice_is_clean_only_where_the_site_says_so", H100, |sim| {
        let scrubber = Arc::new(ByDriver::new(sim.paths.root.clone()));
        let class = Gpus::new(&sim.paths, Arc::clone(&sim.nvml) as Arc<dyn Driver>, scrubber);
        let mut order = order("a", &upper(sim));
        class.attach(&order).unwrap();
        let error = class.erase(&order).unwrap_err();
        assert!(matches!(error, ClassError::ReadBack { .. }), "{error}");
        assert_eq!(class.found().unwrap().len(), 1, "it stays on record");
        let other = sim.class().attach(&sim::order("b", &upper(sim)));
        assert!(other.is_err(), "nobody gets it");
        order.weaker_erase = true;
        let erased = class.erase(&order).unwrap();
        assert_eq!(erased.methods, ["driverScrubOnFree"]);
        assert!(erased.weaker.unwrap().contains("was not read again"));
        let params = sim.paths.root.join("proc/driver/nvidia/params");
        std::fs::create_dir_all(params.parent().unwrap()).unwrap();
        std::fs::write(params, "RegistryDwords: \"RMDisableScrubOnFree=1\"\n").unwrap();
        class.attach(&order).unwrap();
        assert!(matches!(class.erase(&order).unwrap_err(), ClassError::ReadBack { .. }));
    });
}

#[test]
fn a_call_that_hangs_makes_its_gpu_suspect_and_no_other() {
    on("a_call_that_hangs_makes_its_gpu_suspect_and_no_other", &["h100-80", "h100-80"], |sim| {
        let (slow, other) = (sim.bdf(0), sim.bdf(1));
        sim.change(|machine| {
            machine.latency_us.insert("nvmlDeviceGetUUID".to_owned(), 3_000_000);
            Ok(())
        });
        let nvml = Nvml::with_deadline(&sim.paths.nvml, Duration::from_secs(1));
        let begun = Instant::now();
        let error = nvml.identity(&slow).unwrap_err();
        assert!(matches!(&error, GpuError::Silent { gpu, .. } if *gpu == slow), "{error}");
        assert!(matches!(nvml.identity(&slow).unwrap_err(), GpuError::Suspect { .. }));
        assert!(nvml.clients(&other).unwrap().is_empty(), "others go on");
        while nvml.clients(&slow).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(30), "it stays suspect");
            std::thread::sleep(Duration::from_millis(50));
        }
    });
}

#[test]
fn a_driver_that_is_not_there_is_a_typed_state() {
    on("a_driver_that_is_not_there_is_a_typed_state", H100, |sim| {
        let missing = Nvml::new(Path::new("/nonexistent/libnvidia-ml.so.1"));
        assert!(matches!(missing.gpus().unwrap_err(), GpuError::NoLibrary { .. }));
        let gpu = sim.bdf(0);
        let absent = sim.nvml.identity("0000:ff:1f.0").unwrap_err();
        assert!(matches!(absent, GpuError::Absent { .. }), "{absent}");
        sim.change(|machine| {
            machine.driver.loaded = false;
            Ok(())
        });
        let unloaded = || sim.nvml.identity(&gpu).unwrap_err();
        let errors = [unloaded(), unloaded()];
        assert_eq!(errors[1], GpuError::DriverNotLoaded, "{errors:?}");
        assert_eq!(sim.class().found().unwrap(), []);
        let mut problems = Vec::new();
        assert_eq!(inventory::observe(&sim.nvml, &mut problems), []);
        assert_eq!(problems, ["list GPUs: the NVIDIA kernel module is not loaded"]);
    });
}

#[test]
fn xids_are_heard_and_a_gpu_that_asks_for_a_reset_is_closed() {
    on("xids_are_heard_and_a_gpu_that_asks_for_a_reset_is_closed", H100, |sim| {
        let gpu = sim.bdf(0);
        assert_eq!(sim.nvml.xids().unwrap(), []);
        sim.change(|machine| {
            machine.report(0, nvidia_ml::model::events::XID, 95, None)?;
            machine.gpus[0].faults.reset_required = true;
            Ok(())
        });
        let heard = sim.nvml.xids().unwrap();
        let heard: Vec<_> = heard.iter().map(|event| (&event.gpu, event.xid)).collect();
        assert_eq!(heard, [(&gpu, 95)]);
        assert_eq!(sim.nvml.reading(&gpu).unwrap().recovery_action, Some(1));
        let mut problems = Vec::new();
        let gpus = inventory::observe(&sim.nvml, &mut problems);
        assert_eq!(gpus[0].closed, Some(format!("GPU {gpu} asks for a reset")));
        assert_eq!(problems, [format!("GPU {gpu} asks for a reset")]);
    });
}

#[test]
fn refusals_of_every_call_are_typed_by_their_number() {
    on("refusals_of_every_call_are_typed_by_their_number", H100, |sim| {
        let gpu = sim.bdf(0);
        for (function, code) in [
            ("nvmlDeviceGetMigMode", 29),
            ("nvmlDeviceGetUUID", 27),
            ("nvmlDeviceGetName", 25),
            ("nvmlDeviceGetMinorNumber", 23),
            ("nvmlDeviceGetMigMode", 4242),
        ] {
            sim.change(|machine| {
                let function = function.to_owned();
                machine.failures = vec![Failure { function, code, after: 0, calls: 1 }];
                Ok(())
            });
            let error = sim.nvml.identity(&gpu).unwrap_err();
            assert_eq!(error.code(), Some(Code::from(code)), "{function}: {error}");
        }
        sim.nvml.identity(&gpu).unwrap();
    });
}

#[test]
fn of_two_that_race_for_a_place_one_has_it_and_the_other_leaves_it_alone() {
    on("of_two_that_race_for_a_place_one_has_it_and_the_other_leaves_it_alone", H100, |sim| {
        sim.change(|machine| machine.gpu_mut(0)?.set_mig_mode(true).map(drop));
        for round in 0..20 {
            let held = upper(sim);
            // Each with a library and a record of its own, as two programs have them.
            let racers = ["x", "y"].map(|name| {
                let mut paths = sim.paths.clone();
                paths.state = sim.paths.state.join(name);
                let nvml = Arc::new(Nvml::new(&sim.paths.nvml)) as Arc<dyn Driver>;
                let scrubber = Arc::new(ByDriver::new(paths.root.clone()));
                (name, Gpus::new(&paths, nvml, scrubber))
            });
            let race = |(name, class): &(&str, Gpus)| class.attach(&order(name, &held));
            let [x, y] = &racers;
            let given = std::thread::scope(|scope| {
                let other = scope.spawn(|| race(y));
                [race(x), other.join().unwrap()]
            });
            let winners = given.iter().filter(|given| given.is_ok()).count();
            assert_eq!(winners, 1, "round {round}: {given:?}");
            assert_eq!(sim.gpu(0).instances.len(), 1);
            for ((name, class), given) in racers.iter().zip(&given) {
                let known = class.given().unwrap().of(&lease(name), &held).is_some();
                assert_eq!(known, given.is_ok(), "round {round}: {name}");
                if given.is_ok() {
                    let mut back = order(name, &held);
                    back.weaker_erase = true;
                    class.erase(&back).unwrap();
                }
            }
            assert_eq!(sim.gpu(0).instances, []);
        }
    });
}
