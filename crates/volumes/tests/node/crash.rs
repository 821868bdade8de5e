//! A server that is killed at any moment: what it answered is there, and what it did not answer can be asked again.

use crate::{MIB, Node, create_request, unique};
use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Command, Stdio},
};
use stdx::{Entropy, SystemEntropy};
use volumes::{ExpandVolume, LOCAL_DRIVER, Volume, mount};

/// Each kill costs 50 ms; the end-to-end tests kill the whole server more often.
const KILLS: usize = 12;
/// A life of the server says about this many lines before it is killed.
const LINES_MAX: u64 = 25;
const DIRECTORY: &str = "STANCHION_TEST_CRASH_DIRECTORY";

fn volume(handle: &str) -> Volume {
    Volume { handle: handle.to_string(), ..Volume::default() }
}

/// The server's life: volumes come, are written, grow and go; each step is said before and after.
#[tokio::test]
async fn life_of_a_server_that_is_killed() {
    let Some(directory) = std::env::var_os(DIRECTORY).map(PathBuf::from) else { return };
    let node = Node::on(&directory, directory.clone());
    let plugin = node.plugin(LOCAL_DRIVER);
    let say = |line: String| {
        let mut output = std::io::stderr();
        writeln!(output, "{line}").unwrap();
    };
    loop {
        let name = unique("life");
        say(format!("begin {name}"));
        let made = plugin.create(&create_request(&name, 16 * MIB)).await.unwrap();
        say("created".to_string());
        plugin.stage(&node.stage_request(&made)).await.unwrap();
        say("staged".to_string());
        let path = plugin.publish(&node.publish_request(&made, "pod")).await.unwrap().host_path;
        let mut file = fs::File::create(path.join("text")).unwrap();
        file.write_all(name.as_bytes()).unwrap();
        file.sync_all().unwrap();
        fs::File::open(&path).unwrap().sync_all().unwrap();
        drop(file);
        say(format!("kept {name}"));
        let grow = ExpandVolume { volume: made, bytes_min: 24 * MIB, bytes_max: None };
        let _pending_without_the_capability = plugin.expand(&grow).await;
        say("grown".to_string());
        plugin.unpublish(&name, &node.target("pod", &name)).await.unwrap();
        plugin.unstage(&name, &node.staging(&name)).await.unwrap();
        say(format!("going {name}"));
        plugin.delete(&name).await.unwrap();
        say(format!("gone {name}"));
    }
}

/// Kills one life after `lines` lines; answers all that it said.
fn live(node: &Node, lines: u64) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::life_of_a_server_that_is_killed", "--nocapture"])
        .env(DIRECTORY, &node.directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stderr.take().unwrap());
    let mut said = Vec::new();
    let mut line = String::new();
    while output.read_line(&mut line).unwrap() > 0 {
        said.push(line.trim().to_string());
        line.clear();
        if said.len() as u64 == lines {
            child.kill().unwrap();
        }
    }
    assert!(!child.wait().unwrap().success());
    assert!(said.len() as u64 >= lines, "it failed by itself: {said:?}");
    said
}

#[tokio::test]
async fn what_was_answered_survives_a_kill_and_the_rest_can_be_asked_again() {
    let Some(node) = Node::new() else { return };
    let entropy = SystemEntropy::default();
    for _ in 0..KILLS {
        let lines = 1 + entropy.below(LINES_MAX);
        println!("killed after {lines} lines");
        let said = live(&node, lines);
        let named = |word: &str| {
            let names = said.iter().filter_map(|line| line.strip_prefix(word));
            names.map(str::to_string).collect::<Vec<_>>()
        };
        let name = named("begin ").pop().unwrap();
        let plugin = node.plugin(LOCAL_DRIVER);
        if !named("going ").contains(&name) {
            plugin.create(&create_request(&name, 16 * MIB)).await.unwrap();
            let volume = volume(&name);
            plugin.stage(&node.stage_request(&volume)).await.unwrap();
            let request = node.publish_request(&volume, "pod");
            let path = plugin.publish(&request).await.unwrap().host_path;
            let mounts = mount::mounts_below(&node.directory).unwrap();
            assert_eq!(mounts.len(), 2, "{mounts:?}");
            if named("kept ").contains(&name) {
                assert_eq!(fs::read_to_string(path.join("text")).unwrap(), name);
            }
            plugin.unpublish(&name, &path).await.unwrap();
            plugin.unstage(&name, &node.staging(&name)).await.unwrap();
        }
        plugin.delete(&name).await.unwrap();
        assert_eq!(mount::mounts_below(&node.directory).unwrap(), []);
        let left: Vec<_> = fs::read_dir(node.at("volumes")).into_iter().flatten().collect();
        assert!(left.is_empty(), "{left:?}");
        assert!(!looped(&name), "{name} still has a loop device");
    }
}

fn looped(name: &str) -> bool {
    let devices = fs::read_dir("/sys/block").unwrap().map(|entry| entry.unwrap().path());
    let mut files =
        devices.filter_map(|path| fs::read_to_string(path.join("loop/backing_file")).ok());
    files.any(|file| file.contains(name))
}
