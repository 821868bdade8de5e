//! The server may die at any moment: what runs goes on, and the next server knows it again.

use crate::harness::{Harness, command, import_busybox, script, with_runtime};
use rpc::cri::ContainerState;
use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
};

const SERVER: &str = "RUNTIME_TEST_SERVER";

/// Not a test by itself: the process that [`containers_outlive_the_server`] kills.
#[test]
fn server() {
    let Ok(told) = std::env::var(SERVER) else { return };
    let (directory, instance) = told.split_once(' ').unwrap();
    let threads = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    threads.block_on(async {
        let harness = Harness::open(Path::new(directory), instance).await;
        let sandbox = harness.sandbox(|_| {}).await;
        let runs = harness
            .run(&sandbox, script("runs", "while true; do echo tick; sleep 0.01; done"))
            .await;
        let ends = harness.run(
            &sandbox,
            script("ends", "while ! test -e /dev/shm/end; do sleep 0.01; done; exit 9"),
        );
        let ends = ends.await;
        let created =
            harness.create(&sandbox, command("created", &["/bin/sleep", "1000"])).await.unwrap();
        let started = harness.status(&runs).await.started_at;
        println!("told {sandbox} {runs} {ends} {created} {} {started}", harness.pid(&runs).await);
        std::future::pending::<()>().await;
    });
}

#[test]
fn containers_outlive_the_server() {
    with_runtime(|harness| async move {
        let directory = tempfile::tempdir().unwrap();
        import_busybox(directory.path());
        let instance = format!("{}b", &harness.instance[..7]);
        let mut server = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "restart::server", "--nocapture", "--test-threads=1"])
            .env(SERVER, format!("{} {instance}", directory.path().display()))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(server.stdout.take().unwrap()).lines();
        let told = lines
            .map_while(Result::ok)
            .find_map(|line| Some(line.split_once("told ")?.1.to_owned()))
            .unwrap();
        server.kill().unwrap();
        server.wait().unwrap();
        let told: Vec<&str> = told.split(' ').collect();
        let [sandbox, runs, ends, created, pid, started] = told.as_slice() else {
            panic!("{told:?}")
        };

        // One of them ends while nobody is there.
        let before = start_time(pid);
        let shared = format!("/proc/{pid}/root/dev/shm/end");
        fs::write(shared, "").unwrap();
        let directory_of =
            |id: &str| directory.path().join("sandboxes").join(sandbox).join("containers").join(id);
        while !directory_of(ends).join("exit").exists() {
            std::thread::yield_now();
        }

        let again = Harness::open(directory.path(), &instance).await;
        assert_eq!(again.status(ends).await.exit_code, 9);
        let status = again.status(runs).await;
        assert_eq!(status.state(), ContainerState::ContainerRunning);
        assert_eq!(status.started_at.to_string(), *started);
        assert_eq!((again.pid(runs).await.to_string().as_str(), start_time(pid)), (*pid, before));
        assert_eq!(again.status(created).await.state(), ContainerState::ContainerCreated);
        let ticks = again.output(runs).await.len();
        while again.output(runs).await.len() <= ticks {
            again.exec(runs, &["true"]).await;
        }
        again.start(created).await.unwrap();
        let mut events = again.events().await;
        again.stop(runs, 0).await;
        assert_eq!(again.ended(&mut events, runs).await.exit_code, 137);
        again.runtime.stop_all().await.unwrap();
    });
}

/// Field 22 of /proc/PID/stat: when the process started, in ticks since boot.
fn start_time(pid: &str) -> String {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(')').unwrap().1.split_whitespace().nth(19).unwrap().to_owned()
}

#[test]
fn containers_die_with_their_shim_and_are_not_reported_alive() {
    with_runtime(|harness| async move {
        let sandbox = harness.sandbox(|_| {}).await;
        let mut events = harness.events().await;
        let id = harness.run(&sandbox, command("a", &["/bin/sleep", "1000"])).await;
        let request =
            rpc::cri::PodSandboxStatusRequest { pod_sandbox_id: sandbox.clone(), verbose: true };
        let info = harness
            .client
            .clone()
            .pod_sandbox_status(request.clone())
            .await
            .unwrap()
            .into_inner()
            .info;
        let shim = rustix::process::Pid::from_raw(info["pid"].parse().unwrap()).unwrap();
        rustix::process::kill_process(shim, rustix::process::Signal::KILL).unwrap();
        let status = harness.ended(&mut events, &id).await;
        assert_eq!((status.exit_code, status.reason.as_str()), (255, "Unknown"));
        let status = harness
            .client
            .clone()
            .pod_sandbox_status(request)
            .await
            .unwrap()
            .into_inner()
            .status
            .unwrap();
        assert_eq!(status.state(), rpc::cri::PodSandboxState::SandboxNotready);
    });
}
