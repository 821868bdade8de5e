//! Images come from a registry: a public one, one with a password, and one that has not got them.

use tests::{
    Cluster, images,
    registry::{self, Registry},
};

fn pod(name: &str, image: &str, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  restartPolicy: Never\n{more}  containers:\n  \
         - {{name: main, image: \"{image}\", imagePullPolicy: Always, command: [echo, from the registry]}}\n"
    )
}

fn succeeded(cluster: &Cluster, name: &str) {
    cluster.wait_for("the pod ran", &["pod", name], |pod| {
        (pod["status"]["phase"] == "Succeeded").then_some(())
    });
    assert_eq!(cluster.kubectl(&["logs", name]), "from the registry\n");
}

fn waits(cluster: &Cluster, name: &str, reason: &str) -> String {
    cluster.wait_for(&format!("the pod waits with {reason}"), &["pod", name], |pod| {
        let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
        (waiting["reason"] == reason).then(|| waiting["message"].as_str().unwrap().to_owned())
    })
}

fn events(cluster: &Cluster, name: &str) -> String {
    let about = format!("involvedObject.name={name}");
    let columns = "custom-columns=R:.reason,M:.message";
    cluster.kubectl(&["get", "events", "--no-headers", "--field-selector", &about, "-o", columns])
}

#[test]
fn pods_get_their_images_from_a_registry() {
    let Some(cluster) = Cluster::start("registry") else { return };
    let Some(open) = Registry::start(&cluster.directory().join("registry"), false) else { return };
    open.push(&images().busybox, "team/busybox", "1");
    let image = format!("{}/team/busybox:1", open.address);
    cluster.apply(&pod("once", &image, ""));
    succeeded(&cluster, "once");
    let said = events(&cluster, "once");
    assert!(said.contains(&format!("Pulling image \"{image}\"")), "{said}");
    assert!(said.contains(&format!("Successfully pulled image \"{image}\" in ")), "{said}");

    let wrong = format!("{}/team/busybox:2", open.address);
    cluster.apply(&pod("wrong", &wrong, ""));
    let message = waits(&cluster, "wrong", "ImagePullBackOff");
    let cause = format!("pull image {wrong}: not found in the registry: manifest unknown");
    assert_eq!(message, format!("Back-off pulling image \"{wrong}\": ErrImagePull: {cause}"));
    let said = events(&cluster, "wrong");
    for part in [
        format!("Failed to pull image \"{wrong}\": {cause}"),
        "Error: ErrImagePull".to_owned(),
        format!("Back-off pulling image \"{wrong}\""),
        "Error: ImagePullBackOff".to_owned(),
    ] {
        assert!(said.contains(&part), "{part}\n{said}");
    }

    cluster.apply(&pod("nonsense", "No Image", ""));
    let message = waits(&cluster, "nonsense", "InvalidImageName");
    assert!(message.contains("couldn't parse image name \"No Image\""), "{message}");

    drop(open);
    cluster.kubectl(&["delete", "pod", "once"]);
    cluster.apply(&pod("once", &image, ""));
    let message = waits(&cluster, "once", "ErrImagePull");
    assert!(message.contains("Connection refused"), "a pulled image is not passed off: {message}");
    let archive = images().busybox.to_str().unwrap();
    cluster.stanchion_ok(&["image", "import", archive, "--tag", &image]);
    succeeded(&cluster, "once");
    let said = events(&cluster, "once");
    assert!(said.contains("already present on machine: it was imported"), "{said}");
}

#[test]
fn a_secret_opens_a_private_registry() {
    let Some(cluster) = Cluster::start("private") else { return };
    let Some(shut) = Registry::start(&cluster.directory().join("registry"), true) else { return };
    shut.push(&images().busybox, "busybox", "1");
    let image = format!("{}/busybox:1", shut.address);
    let with = "  imagePullSecrets: [{name: login}]\n";
    cluster.apply(&pod("p", &image, with));
    let message = waits(&cluster, "p", "ErrImagePull");
    assert!(message.contains("authorization failed"), "{message}");
    let said = events(&cluster, "p");
    assert!(said.contains("Unable to retrieve some image pull secrets (login)"), "{said}");
    cluster.kubectl(&[
        "create",
        "secret",
        "docker-registry",
        "login",
        &format!("--docker-server={}", shut.address),
        &format!("--docker-username={}", registry::USER),
        &format!("--docker-password={}", registry::PASSWORD),
    ]);
    succeeded(&cluster, "p");
    // The image is here, but not for everybody.
    let present =
        |name: &str, more: &str| pod(name, &image, more).replace("Always", "IfNotPresent");
    cluster.apply(&present("stranger", ""));
    let message = waits(&cluster, "stranger", "ErrImagePull");
    assert!(message.contains("authorization failed"), "{message}");
    cluster.apply(&present("friend", with));
    succeeded(&cluster, "friend");
    let said = events(&cluster, "friend");
    let usable = "already present on machine and can be accessed by the pod";
    assert!(said.contains(usable), "{said}");

    let refused = cluster.stanchion(&["image", "pull", &format!("{}/busybox:2", shut.address)]);
    assert!(!refused.ok && refused.errors.contains("authorization failed"), "{}", refused.errors);
    let logins = cluster.directory().join("config.json");
    let text = format!(r#"{{"auths": {{"{}": {{"auth": "{}"}}}}}}"#, shut.address, registry::AUTH);
    std::fs::write(&logins, text).unwrap();
    shut.push(&images().busybox, "other/name", "2");
    let reference = format!("{}/other/name:2", shut.address);
    let logins = logins.to_str().unwrap();
    let said = cluster.stanchion_ok(&["image", "pull", &reference, "--config", logins]);
    assert!(said.starts_with(&format!("pulled {reference}\n")), "{said}");
    let said = cluster.stanchion(&["image", "import", "/etc/passwd"]);
    assert!(!said.ok && !said.errors.contains("root:"), "{}", said.errors);
}
