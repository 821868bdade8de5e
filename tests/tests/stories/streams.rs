//! Bytes into and out of pods, as kubectl carries them: whichever kubectl is on the path, and so whichever protocol.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, Command, Stdio},
};
use tests::{Cluster, Options, Said, images, is_ready};

const POD: &str = "apiVersion: v1
kind: Pod
metadata: {name: box, labels: {app: box}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: busybox
    imagePullPolicy: IfNotPresent
    command: [sh, -c, 'mkdir /www; echo page > /www/index.html; exec httpd -f -p 8080 -h /www']
    ports: [{containerPort: 8080}]
    readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: box}
spec:
  selector: {app: box}
  ports: [{name: http, port: 80, targetPort: 8080}]
";

/// Larger than every buffer on the way together.
const LARGE: usize = 24 << 20;

fn cluster(story: &str) -> Option<Cluster> {
    let options = Options { images: vec![images().busybox.clone()], ..Options::default() };
    let cluster = Cluster::start_with(story, options)?;
    cluster.apply(POD);
    cluster.wait_for("the pod is Ready", &["pod", "box"], |pod| is_ready(pod).then_some(()));
    Some(cluster)
}

/// Runs a command to its end; its exit code, too.
fn coded(command: &mut Command, input: &[u8]) -> (Option<i32>, Vec<u8>, String) {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("kubectl starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    let output = std::thread::scope(|scope| {
        scope.spawn(move || {
            // Whoever does not read to the end says why.
            let _unread = stdin.write_all(input);
        });
        child.wait_with_output().expect("kubectl ends")
    });
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), output.stdout, errors)
}

fn noise() -> Vec<u8> {
    let mut state = 1u64;
    let next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(next).take(LARGE).collect()
}

#[test]
fn a_command_takes_and_gives_every_byte_and_ends_with_its_own_code() {
    let Some(cluster) = cluster("exec") else { return };
    let run = |words: &[&str], input: &[u8]| {
        let all = [&["exec", "-i", "box", "--"], words].concat();
        coded(&mut cluster.kubectl_command(&all), input)
    };
    let (code, out, errors) = run(&["sh", "-c", "echo out; echo err >&2; exit 7"], b"");
    assert_eq!((code, out.as_slice()), (Some(7), &b"out\n"[..]), "{errors}");
    assert!(errors.starts_with("err\n") && errors.contains("exit code 7"), "{errors}");
    // Half-closed: cat ends because the input does, and what it read comes back whole.
    let noise = noise();
    let (code, back, errors) = run(&["cat"], &noise);
    assert_eq!(code, Some(0), "{errors}");
    assert!(back == noise, "{} of {} bytes came back", back.len(), noise.len());
    // Files and folders, there and back.
    let here = cluster.directory().join("there");
    fs::create_dir_all(here.join("deep")).unwrap();
    fs::write(here.join("noise"), &noise).unwrap();
    fs::write(here.join("deep/text"), "text").unwrap();
    let (there, back) = (here.display().to_string(), cluster.directory().join("back"));
    cluster.kubectl(&["cp", &there, "box:/tmp/there"]);
    cluster.kubectl(&["cp", "box:/tmp/there", &back.display().to_string()]);
    assert!(fs::read(back.join("noise")).unwrap() == noise);
    assert_eq!(fs::read_to_string(back.join("deep/text")).unwrap(), "text");
    // Many at once do not mix.
    std::thread::scope(|scope| {
        for number in 0..8 {
            let mut command = cluster.kubectl_command(&["exec", "-i", "box", "--", "cat"]);
            scope.spawn(move || {
                let said = format!("words of {number}\n").repeat(2000);
                let (code, back, errors) = coded(&mut command, said.as_bytes());
                assert_eq!((code, back), (Some(0), said.into_bytes()), "{errors}");
            });
        }
    });
}

#[test]
fn a_pod_that_is_run_and_attached_to_is_gone_afterwards() {
    let Some(cluster) = cluster("attach") else { return };
    let run = ["run", "once", "-i", "--rm", "--image=busybox", "--image-pull-policy=IfNotPresent"];
    let words = [&run[..], &["--restart=Never", "--quiet", "--", "sh"]].concat();
    let (code, out, errors) =
        coded(&mut cluster.kubectl_command(&words), b"echo from inside; exit 3\n");
    assert_eq!(code, Some(3), "{errors}");
    assert!(String::from_utf8_lossy(&out).contains("from inside"), "{out:?} {errors}");
    cluster.wait_for("--rm takes it away", &["pod", "once"], |pod| pod.is_null().then_some(()));

    // A client that leaves takes nothing but itself.
    cluster.apply(
        "apiVersion: v1
kind: Pod
metadata: {name: talk}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: busybox
    imagePullPolicy: IfNotPresent
    stdin: true
    command: [sh, -c, 'while read line; do echo got $line; done']
",
    );
    cluster.wait_for("the pod is Ready", &["pod", "talk"], |pod| is_ready(pod).then_some(()));
    for word in ["one", "two"] {
        let mut command = cluster.kubectl_command(&["attach", "-i", "talk"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("kubectl starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        writeln!(stdin, "{word}").unwrap();
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let heard = lines.find(|it| it.as_ref().is_ok_and(|it| it == &format!("got {word}")));
        assert!(heard.is_some(), "the answer to {word}");
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let pod = cluster.json(&["get", "pod", "talk"]);
    assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 0);
    assert_eq!(cluster.kubectl(&["logs", "talk"]), "got one\ngot two\n");
}

/// A `kubectl port-forward` that runs, and the port it listens on.
struct Forward(Child, u16);

impl Drop for Forward {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

fn forward(cluster: &Cluster, to: &str, port: &str) -> Forward {
    let mut command =
        cluster.kubectl_command(&["port-forward", "--address=127.0.0.1", to, &format!(":{port}")]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().expect("kubectl starts");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let line = lines.next().expect("a line").expect("text");
    // Forwarding from 127.0.0.1:40123 -> 8080
    let number = line.split(" -> ").next().and_then(|it| it.rsplit(':').next()?.parse().ok());
    let number = number.unwrap_or_else(|| panic!("{line}"));
    // kubectl says more with each connection.
    std::thread::spawn(move || lines.for_each(drop));
    Forward(child, number)
}

fn page(port: u16) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("kubectl listens");
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut said = String::new();
    let _reset = stream.read_to_string(&mut said);
    said.rsplit("\r\n\r\n").next().unwrap_or_default().to_owned()
}

#[test]
fn ports_of_pods_are_ports_of_this_machine() {
    let Some(cluster) = cluster("forward") else { return };
    for to in ["pod/box", "svc/box"] {
        let port = if to == "svc/box" { "80" } else { "8080" };
        let forward = forward(&cluster, to, port);
        assert_eq!(page(forward.1), "page\n", "{to}");
        std::thread::scope(|scope| {
            for _ in 0..20 {
                scope.spawn(|| assert_eq!(page(forward.1), "page\n"));
            }
        });
    }
    // Nobody listens: the connection ends, and the pod goes on.
    let nobody = forward(&cluster, "pod/box", "9999");
    assert_eq!(page(nobody.1), "");
    let Said { errors, .. } = cluster.try_kubectl(&["port-forward", "pod/nobody", ":80"]);
    assert!(errors.contains("not found"), "{errors}");
}

#[test]
fn the_door_passes_requests_on_to_pods_services_and_nodes() {
    let Some(cluster) = cluster("proxy") else { return };
    let raw = |path: &str| cluster.kubectl(&["get", "--raw", path]);
    let here = "/api/v1/namespaces/default";
    assert_eq!(raw(&format!("{here}/pods/box/proxy/")), "page\n");
    assert_eq!(raw(&format!("{here}/pods/http:box:8080/proxy/index.html")), "page\n");
    for service in ["box:http", "box:80", "http:box:http"] {
        assert_eq!(raw(&format!("{here}/services/{service}/proxy/")), "page\n", "{service}");
    }
    assert_eq!(raw("/api/v1/nodes/n1/proxy/healthz"), "ok");
    assert!(raw("/api/v1/nodes/n1/proxy/pods").contains("\"PodList\""));
    assert!(raw("/api/v1/nodes/n1/proxy/metrics").contains("kubelet_"));
    let refused = cluster.try_kubectl(&["get", "--raw", &format!("{here}/pods/box:9999/proxy/")]);
    assert!(refused.errors.contains("connection refused"), "{}", refused.errors);
    let nobody = cluster.try_kubectl(&["get", "--raw", &format!("{here}/services/box/proxy/")]);
    assert!(
        nobody.errors.contains("no endpoints available for service \"box\""),
        "{}",
        nobody.errors
    );
}
