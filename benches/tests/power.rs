//! The disk that loses its power, under real programs.

use std::fs;
use std::process::Command;

use benches::power::{Disk, Loss};
use sim::random::Random;

/// Runs a shell script in the disk's folder.
fn run(disk: &Disk, script: &str) {
    let status = Command::new("sh")
        .args(["-e", "-c", script])
        .current_dir(disk.folder())
        .envs(disk.environment())
        .status()
        .expect("a shell");
    assert!(status.success(), "{script}");
}

fn cut(disk: &mut Disk) -> benches::power::Cut {
    disk.cut(Loss::Everything, &mut Random::new(1)).expect("cuts")
}

fn read(disk: &Disk, name: &str) -> Option<String> {
    fs::read_to_string(disk.folder().join(name)).ok()
}

#[test]
fn what_was_synced_with_its_folder_stays_and_the_rest_is_gone() {
    let mut disk = Disk::new().expect("a disk");
    run(&disk, "printf one > a; sync a; sync .; printf two >> a; printf three > b; sync b");
    let cut = cut(&mut disk);
    assert_eq!(read(&disk, "a").as_deref(), Some("one"), "{cut}");
    assert_eq!(read(&disk, "b"), None, "its folder was not synced: {cut}");
    assert_eq!(cut.fired.of("files_back_at_last_sync"), 1, "{cut}");
    assert_eq!(cut.fired.of("unsynced_names_lost"), 1, "{cut}");
}

#[test]
fn names_that_were_not_synced_are_the_old_ones_again() {
    let mut disk = Disk::new().expect("a disk");
    run(&disk, "printf old > a; printf gone > b; mkdir c; printf in > c/d; sync a b c c/d .");
    cut(&mut disk);
    run(&disk, "printf new > e; sync e; mv e a; rm b; mv c/d f; rmdir c");
    let cut = cut(&mut disk);
    let found = ["a", "b", "c/d", "e", "f"].map(|name| read(&disk, name));
    let found = found.each_ref().map(Option::as_deref);
    assert_eq!(found, [Some("old"), Some("gone"), Some("in"), None, None], "{cut}");
}

#[test]
fn a_file_that_is_cut_off_or_overwritten_comes_back() {
    let mut disk = Disk::new().expect("a disk");
    run(&disk, "head -c 5000 /dev/zero | tr '\\0' a > a; sync a .");
    run(&disk, "printf b > a; truncate -s 9000 a; truncate -s 3 a");
    run(&disk, "printf xyz | dd of=a bs=1 seek=1 conv=notrunc status=none");
    assert_eq!(read(&disk, "a").as_deref(), Some("bxyz"));
    let cut = cut(&mut disk);
    assert_eq!(read(&disk, "a"), Some("a".repeat(5_000)), "{cut}");
}

#[test]
fn a_mixed_cut_repeats_from_its_seed_and_loses_nothing_that_was_synced() {
    let after = |seed| {
        let mut disk = Disk::new().expect("a disk");
        run(&disk, "printf %04000d 1 > a; sync a .; printf %04000d 2 >> a; printf c > c; rm -f b");
        let cut = disk.cut(Loss::Mix, &mut Random::new(seed)).expect("cuts");
        (read(&disk, "a"), read(&disk, "c"), cut.to_string())
    };
    let cuts: Vec<_> = (0..12).map(after).collect();
    let synced = format!("{:04000}", 1);
    assert!(cuts.iter().all(|(a, ..)| a.as_ref().is_some_and(|a| a.starts_with(&synced))));
    assert!(cuts.iter().any(|(_, c, _)| c.is_none()) && cuts.iter().any(|(_, c, _)| c.is_some()));
    assert!(cuts.iter().any(|cut| cut != &cuts[0]), "seeds differ");
    assert!((0..3).map(after).eq(cuts[..3].iter().cloned()), "a seed repeats");
}

#[test]
fn a_process_dies_in_front_of_the_operation_that_was_asked_for() {
    let disk = Disk::new().expect("a disk");
    let script = "exec 3> a; printf one >&3; printf two >&3; printf three >&3";
    let died = Command::new("sh")
        .args(["-c", script])
        .current_dir(disk.folder())
        .envs(disk.environment())
        .envs([Disk::die_at(4)])
        .status()
        .expect("a shell");
    let signal = std::os::unix::process::ExitStatusExt::signal(&died);
    assert_eq!(signal, Some(9));
    assert_eq!(read(&disk, "a").as_deref(), Some("onetwo"));
    assert_eq!(disk.calls(|name| name == "a").expect("reads").changes, 2);
}
