//! Real processes on real sockets: the `node` example, killed, stopped, restarted and told to go.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

#[path = "support/process.rs"]
mod support;

use support::{LIMIT, Line, Process, eventually, node_binary, text, texts};

/// Starts a node on a port that the kernel chooses, unless `flags` bind it; waits until it is
/// ready.
fn start(name: &str, seeds: &[&str], flags: &[&str]) -> Process {
    let mut command = Command::new(node_binary());
    command.args(["--preset", "local"]);
    if !flags.contains(&"--bind") {
        command.args(["--bind", "127.0.0.1:0"]);
    }
    for seed in seeds {
        command.args(["--seed", seed]);
    }
    command.args(flags);
    Process::start(name, command)
}

fn all_see(processes: &mut [Process], names: &[&str]) {
    eventually(&format!("all see {names:?}"), || {
        processes.iter_mut().all(|process| process.members() == names)
    });
}

/// `names` on ports of their own, the first as everybody's seed, each with the role `web` and, in
/// `jobs`, `worker`.
fn cluster(names: &[&str]) -> Vec<Process> {
    let flags = ["--role", "web", "--scope-role", "jobs=worker"];
    let mut processes: Vec<Process> = Vec::new();
    for name in names {
        let seed = processes.first().map(|first| first.addr.clone());
        let seeds: Vec<&str> = seed.as_deref().into_iter().collect();
        processes.push(start(name, &seeds, &flags));
    }
    all_see(&mut processes, names);
    for role in ["web", "worker jobs"] {
        eventually(role, || processes.iter_mut().all(|process| process.nodes(role) == names));
    }
    processes
}

#[test]
fn a_killed_process_is_down_for_all_others_and_its_roles_are_gone() {
    let mut processes = cluster(&["a", "b", "c", "d", "e"]);
    let mut killed = processes.remove(2);
    killed.kill();
    for process in &mut processes {
        process.sees_down("c", "failed");
        assert_eq!(process.nodes("web"), ["a", "b", "d", "e"]);
        assert_eq!(process.nodes("worker jobs"), ["a", "b", "d", "e"]);
        assert_eq!(process.members(), ["a", "b", "d", "e"]);
    }
}

#[test]
fn a_stopped_process_catches_up_when_it_goes_on() {
    let mut processes = cluster(&["a", "b", "c", "d"]);
    processes[3].tell("add old");
    processes[3].signal("-STOP");
    let stopped = Instant::now();
    for round in 0..10 {
        for process in &mut processes[..3] {
            process.tell(&format!("add round-{round}"));
            process.tell(&format!("remove round-{}", round % 3));
            process.tell(&format!("add job-{round} jobs"));
        }
        processes[0].tell("remove web");
        processes[0].tell("add web");
        std::thread::sleep(Duration::from_millis(300));
    }
    std::thread::sleep(Duration::from_secs(5).saturating_sub(stopped.elapsed()));
    processes[3].signal("-CONT");
    processes[3].tell("add new");
    all_see(&mut processes, &["a", "b", "c", "d"]);
    for scope in ["default", "jobs"] {
        let mut pictures = Vec::new();
        eventually(&format!("all views of {scope} are equal"), || {
            pictures = processes.iter_mut().map(|process| process.picture(scope)).collect();
            pictures.windows(2).all(|pair| pair[0] == pair[1]) && pictures[0].len() == 4
        });
        let expected = if scope == "jobs" { "job-9" } else { "round-9" };
        assert!(pictures[0][0].1.contains(&expected.to_string()), "{:?}", pictures[0]);
    }
    assert!(processes[0].picture("default")[3].1.contains(&"new".to_string()));
}

/// 1,000 quick changes in each of ten processes, one of which stands still for 5 s in the middle.
#[test]
fn nothing_is_lost_when_all_change_and_one_stands_still() {
    let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
    let mut processes = cluster(&names);
    let change = |process: &mut Process, n: u32| {
        if n.is_multiple_of(2) {
            process.tell(&format!("add role-{}", n % 40));
        } else {
            process.tell(&format!("remove role-{}", (n * 7 + 13) % 40));
        }
    };
    for n in 0..500 {
        processes.iter_mut().for_each(|process| change(process, n));
    }
    processes[9].signal("-STOP");
    let stopped = Instant::now();
    for n in 500..1000 {
        processes[..9].iter_mut().for_each(|process| change(process, n));
    }
    std::thread::sleep(Duration::from_secs(5).saturating_sub(stopped.elapsed()));
    processes[9].signal("-CONT");
    let went_on = Instant::now();
    for n in 500..1000 {
        change(&mut processes[9], n);
    }
    for process in &mut processes {
        process.tell("add last");
    }
    let mut pictures = Vec::new();
    eventually("all views are equal, with every last change", || {
        pictures = processes.iter_mut().map(|process| process.picture("default")).collect();
        let last = |(_, roles): &(String, Vec<String>)| roles.contains(&"last".to_string());
        pictures.windows(2).all(|pair| pair[0] == pair[1])
            && pictures[0].len() == 10
            && pictures[0].iter().all(last)
    });
    println!("all views equal {:.1?} after the stopped one went on", went_on.elapsed());
}

/// Kills `b` of three, starts it again with another role and the given flags, and watches that
/// nobody ever shows both runs.
fn restart_of_b(flags: impl Fn(&str) -> Vec<String>) {
    let mut processes = cluster(&["a", "b", "c"]);
    let mut old = processes.remove(1);
    let mut flags = flags(&old.addr);
    flags.extend(["--role".into(), "api".into()]);
    old.kill();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let mut new = start("b", &[&processes[0].addr.clone()], &flags);
    let deadline = Instant::now() + LIMIT;
    let mut settled = false;
    while !settled {
        assert!(Instant::now() < deadline, "the new run is not seen by all");
        settled = true;
        for process in &mut processes {
            let roles = texts(&process.ask("roles b")["roles"]);
            assert!(roles == ["web"] || roles == ["api"] || roles.is_empty(), "{roles:?}");
            assert!(process.members().iter().filter(|name| *name == "b").count() <= 1);
            settled &= roles == ["api"];
        }
    }
    let id = text(&new.ready()["id"]);
    for process in &mut processes {
        let answer = process.ask("members");
        let b = &answer["members"][1];
        assert_eq!((&b["id"], &b["addr"]), (&Value::from(id.as_str()), &new.addr.clone().into()));
        assert_eq!(process.nodes("web"), ["a", "c"]);
        assert_eq!(process.nodes("worker jobs"), ["a", "c"]);
    }
    assert_eq!(new.members(), ["a", "b", "c"]);
    assert_eq!(new.nodes("web"), ["a", "c"]);
}

#[test]
fn a_restart_at_the_same_address_replaces_the_old_run() {
    restart_of_b(|addr| vec!["--bind".into(), addr.into()]);
}

#[test]
fn a_restart_at_another_address_replaces_the_old_run() {
    restart_of_b(|_| Vec::new());
}

#[test]
fn a_whole_cluster_restarts() {
    let mut processes = cluster(&["a", "b", "c"]);
    let addrs: Vec<String> = processes.iter().map(|process| process.addr.clone()).collect();
    for process in &mut processes {
        process.kill();
    }
    drop(processes);
    let seeds: Vec<&str> = addrs.iter().map(String::as_str).collect();
    // Each waits a while for the others before it is ready: all are started at once.
    let mut processes: Vec<Process> = std::thread::scope(|scope| {
        let restart = |(name, addr)| start(name, &seeds, &["--bind", addr, "--role", "new"]);
        let pairs = ["a", "b", "c"].into_iter().zip(seeds.iter().copied());
        let started: Vec<_> = pairs.map(|pair| scope.spawn(move || restart(pair))).collect();
        started.into_iter().map(|thread| thread.join().expect("it starts")).collect()
    });
    all_see(&mut processes, &["a", "b", "c"]);
    eventually("all have the new roles only", || {
        let new = |process: &mut Process| process.nodes("new").len() == 3;
        processes.iter_mut().all(new)
    });
    for process in &mut processes {
        assert!(process.nodes("web").is_empty(), "a role of the last life is shown");
    }
}

#[test]
fn a_terminated_process_says_goodbye() {
    let mut processes = cluster(&["a", "b", "c", "d"]);
    let mut gone = processes.remove(1);
    gone.signal("-TERM");
    gone.event("it has left", |event| event["event"] == "left");
    assert!(gone.child.0.wait().expect("it was started here").success());
    let mut ends = processes.remove(2);
    ends.input = None;
    assert!(ends.child.0.wait().expect("it was started here").success());
    for process in &mut processes {
        process.sees_down("b", "left");
        process.sees_down("d", "left");
        assert_eq!(process.nodes("web"), ["a", "c"]);
        assert_eq!(process.members(), ["a", "c"]);
    }
}

/// Two clusters with these flags, whose nodes have each other's addresses as seeds.
fn never_merge(red: &[&str], blue: &[&str]) {
    let (red, blue) = ([red, &["--role", "web"]].concat(), [blue, &["--role", "web"]].concat());
    let mut red1 = start("r1", &[], &red);
    let mut blue1 = start("b1", &[&red1.addr], &blue);
    let mut red2 = start("r2", &[&blue1.addr, &red1.addr], &red);
    let mut blue2 = start("b2", &[&red1.addr, &red2.addr, &blue1.addr], &blue);
    let start = Instant::now();
    // Seeds are tried again every two seconds: they have met more than once by then.
    eventually("each cluster has met, and some time has passed", || {
        for (process, initial) in [(&mut red1, 'r'), (&mut red2, 'r'), (&mut blue1, 'b')] {
            let nodes = [process.members(), process.nodes("web")].concat();
            assert!(nodes.iter().all(|name| name.starts_with(initial)), "{nodes:?}");
        }
        start.elapsed() > Duration::from_secs(5)
            && red1.members() == ["r1", "r2"]
            && blue2.members() == ["b1", "b2"]
    });
    assert_eq!(blue2.nodes("web"), ["b1", "b2"]);
    assert_eq!(red2.nodes("web"), ["r1", "r2"]);
}

#[test]
fn clusters_of_different_names_never_merge() {
    never_merge(&["--cluster", "red"], &["--cluster", "blue"]);
}

#[test]
fn clusters_of_different_keys_never_merge() {
    let dir = std::env::temp_dir();
    let keys = ["red", "blue"].map(|name| {
        let file = dir.join(format!("rolecall-processes-{}-{name}.key", std::process::id()));
        let byte = format!("{:02x}", name.len());
        std::fs::write(&file, byte.repeat(32)).expect("a temporary file");
        file.to_str().expect("a path of plain letters").to_owned()
    });
    never_merge(&["--key", &keys[0]], &["--key", &keys[1]]);
    never_merge(&["--key", &keys[0]], &[]);
    keys.iter().for_each(|file| std::fs::remove_file(file).expect("it was written above"));
}

/// A node that logs all there is to say to `stderr`, in a cluster with another one whose roles
/// change: it does not go down, and learns of every change.
fn lives_with_a_log_at(stderr: Stdio) {
    let mut a = start("a", &[], &[]);
    let mut command = Command::new(node_binary());
    command.args(["--preset", "local", "--bind", "127.0.0.1:0", "--seed", &a.addr]);
    command.env("RUST_LOG", "trace").stderr(stderr);
    let mut b = Process::start("b", command);
    for round in 0..50 {
        a.tell(&format!("add role-{round}"));
        b.tell(&format!("add own-{round}"));
    }
    eventually("b knows all", || b.nodes("role-49") == ["a"]);
    eventually("a knows all", || a.nodes("own-49") == ["b"]);
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!((a.members(), b.members()), (vec!["a".into(), "b".into()], b.members()));
    let down = |event: &Line| event.value["event"] == "node_down";
    assert!(!a.events.iter().any(down) && !b.events.iter().any(down));
}

#[test]
fn a_log_that_nobody_takes_stops_nothing() {
    // A pipe that is full, and blocks.
    let (unread, mut full) = std::io::pipe().expect("a pipe");
    full.write_all(&vec![b'.'; 64 << 10]).expect("it takes so much");
    lives_with_a_log_at(full.into());
    drop(unread);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_stops_nothing() {
    let full = std::fs::File::options().write(true).open("/dev/full").expect("Linux has it");
    lives_with_a_log_at(full.into());
}

#[test]
fn what_is_not_understood_is_refused_with_words() {
    let mut node = start("a", &[], &[]);
    for (command, part) in [
        ("fly", "\"fly\" is not a command"),
        ("add", "not a command"),
        ("leave nowhere", "not in that scope"),
        ("join default", "already in that scope"),
    ] {
        let answer = node.ask(command);
        assert!(text(&answer["error"]).contains(part), "{answer}");
    }
    for (flags, part) in [
        (&["--fly"][..], "no flag --fly"),
        (&["--role", "web"], "--name is missing"),
        (&["--name", "a", "--preset", "moon"], "--preset moon"),
        (&["--name", "a", "--scope-role", "jobs"], "SCOPE=ROLE"),
        (&["--name", "a", "stray"], "stray"),
    ] {
        let output = Command::new(node_binary()).args(flags).output().expect("it runs");
        assert_eq!(output.status.code(), Some(2));
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(errors.contains(part), "{errors}");
    }
}
