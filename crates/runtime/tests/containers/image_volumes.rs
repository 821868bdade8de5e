//! Images that containers mount like volumes.

use crate::harness::{add, import, script, with_runtime};
use rpc::cri;

const DATA: &str = "registry.test/data:1";

fn files(files: &[(&str, &str)]) -> Vec<u8> {
    let mut layer = tar::Builder::new(Vec::new());
    for (path, text) in files {
        add(&mut layer, path, 0o644, text.as_bytes());
    }
    layer.into_inner().unwrap()
}

fn mounted(mut config: cri::ContainerConfig, path: &str, part: &str) -> cri::ContainerConfig {
    let image = Some(cri::ImageSpec { image: DATA.to_owned(), ..Default::default() });
    config.mounts.push(cri::Mount {
        container_path: path.to_owned(),
        image,
        image_sub_path: part.to_owned(),
        readonly: true,
        ..Default::default()
    });
    config
}

#[test]
fn an_image_or_a_part_of_it_is_seen_and_nothing_of_it_can_be_changed() {
    with_runtime(|harness| async move {
        let lower = files(&[("plain", "one\n"), ("dir/gone", "x"), ("dir/below", "kept\n")]);
        let upper = files(&[("plain", "two\n"), ("dir/.wh.gone", "")]);
        import(&harness.directory, DATA, &[lower.clone(), upper]);
        let sandbox = harness.sandbox(|_| {}).await;
        let look =
            script("a", "cat /image/plain; ls /part; cat /file; touch /image/x 2>&1; echo $?");
        let look = mounted(mounted(mounted(look, "/image", ""), "/part", "dir"), "/file", "plain");
        let (status, output) = harness.run_to_end(&sandbox, look).await;
        assert_eq!(status.exit_code, 0, "{output}");
        let expected = "two\nbelow\ntwo\ntouch: /image/x: Read-only file system\n1\n";
        assert_eq!(output, expected, "{status:?}");

        import(&harness.directory, DATA, &[lower]);
        let look = mounted(script("b", "cat /image/plain; ls /image/dir"), "/image", "");
        let (_, output) = harness.run_to_end(&sandbox, look).await;
        assert_eq!(output, "one\nbelow\ngone\n", "an image of one layer");
    });
}

#[test]
fn a_part_that_is_not_in_the_image_is_told_before_anything_runs() {
    with_runtime(|harness| async move {
        import(&harness.directory, DATA, &[files(&[("dir/file", "x")])]);
        let sandbox = harness.sandbox(|_| {}).await;
        let absent = mounted(script("a", "true"), "/image", "dir/absent");
        let error = harness.create(&sandbox, absent).await.unwrap_err();
        let said = "ImageVolumeMountFailed: mount /image: \"dir/absent\" is not in image";
        assert!(error.message().contains(said), "{error}");
    });
}
