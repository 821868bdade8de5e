//! Parts of volumes, bound for one container.

use crate::Node;
use std::fs;
use volumes::{
    mount,
    subpath::{self, SubPath},
};

#[tokio::test]
async fn directories_and_files_are_bound_and_taken_away() {
    let Some(node) = Node::new() else { return };
    let root = node.at("volume");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("file"), "text").unwrap();
    let part = |path: &str, index: &str| SubPath {
        volume: "data".to_string(),
        root: root.clone(),
        path: path.to_string(),
        target: node.at("pods/1/volume-subpaths/data/main").join(index),
        read_only: index == "1",
    };
    let directory = subpath::publish(&part("a/b", "0")).await.unwrap();
    let file = subpath::publish(&part("file", "1")).await.unwrap();
    subpath::publish(&part("a/b", "0")).await.unwrap();
    assert_eq!(mount::mounts_below(&node.directory).unwrap().len(), 2);
    fs::write(directory.join("new"), "seen").unwrap();
    assert_eq!(fs::read_to_string(root.join("a/b/new")).unwrap(), "seen");
    assert_eq!(fs::read_to_string(&file).unwrap(), "text");
    assert!(fs::write(&file, "no").is_err());

    // Replaced meanwhile, as an editor does: the next container gets the new file.
    fs::write(root.join("file.new"), "newer").unwrap();
    fs::rename(root.join("file.new"), root.join("file")).unwrap();
    subpath::publish(&part("file", "1")).await.unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), "newer");

    subpath::unpublish("data", &file).await.unwrap();
    subpath::unpublish_below("data", &node.at("pods/1/volume-subpaths")).await.unwrap();
    subpath::unpublish_below("data", &node.at("pods/1/volume-subpaths")).await.unwrap();
    assert!(!node.at("pods/1/volume-subpaths").exists());
    assert!(root.join("a/b/new").exists() && root.join("file").exists());

    let error = subpath::publish(&part("/etc", "2")).await.unwrap_err().to_string();
    assert_eq!(error, "error SubPath `/etc` must not be an absolute path");
    let error = subpath::publish(&part("a/../..", "2")).await.unwrap_err().to_string();
    assert_eq!(error, "unable to provision SubPath `a/../..`: must not contain '..'");
}
