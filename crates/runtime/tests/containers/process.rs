//! Users, exec, terminals, stdin, attach, ports.

use crate::harness::{command, script, security, with_runtime};
use rpc::cri;
use runtime::Stdio;
use std::{
    fs::File,
    io::{Read, Write},
};

#[test]
fn the_user_comes_from_the_image_or_the_pod() {
    with_runtime(|harness| async move {
        let sandbox = harness.sandbox(|_| {}).await;
        let text = "id -u; id -g; id -G; echo $HOME $FROM_IMAGE $EXTRA $HOSTNAME; echo again > /dev/stdout";
        let mut config = script("image", text);
        config.envs = vec![cri::KeyValue { key: "EXTRA".into(), value: "more".into() }];
        let (status, output) = harness.run_to_end(&sandbox, config).await;
        assert_eq!(output, "101\n102\n102 42\n/var/nginx yes more web-0\nagain\n");
        let user = status.user.unwrap().linux.unwrap();
        assert_eq!((user.uid, user.gid, user.supplemental_groups), (101, 102, vec![102, 42]));

        let mut config = script("pod", "id -u; id -g; id -G; echo $HOME");
        security(&mut config).run_as_user = Some(cri::Int64Value { value: 1000 });
        security(&mut config).run_as_group = Some(cri::Int64Value { value: 3000 });
        security(&mut config).supplemental_groups = vec![2000];
        let (_, output) = harness.run_to_end(&sandbox, config).await;
        assert_eq!(output, "1000\n3000\n3000 2000\n/\n");

        let mut config = script("unknown", "true");
        security(&mut config).run_as_username = "nobody-knows".into();
        let id = harness.create(&sandbox, config).await.unwrap();
        let error = harness.start(&id).await.unwrap_err();
        assert!(
            error
                .message()
                .ends_with("unable to find user nobody-knows: no matching entries in passwd file")
        );
    });
}

#[test]
fn exec_runs_inside_the_container() {
    with_runtime(|harness| async move {
        let sandbox = harness.sandbox(|_| {}).await;
        let id = harness.run(&sandbox, command("a", &["/bin/sleep", "1000"])).await;
        let (code, output) =
            harness.exec(&id, &["/bin/sh", "-c", "id -u; cat /proc/1/cmdline; exit 7"]).await;
        assert_eq!((code, output.as_str()), (7, "101\n/bin/sleep\x001000\0"));
        let (code, output) =
            harness.exec(&id, &["/bin/sh", "-c", "grep -c . /proc/self/cgroup; sleep 999 &"]).await;
        assert_eq!(code, 0, "{output}");
        let request =
            cri::ExecSyncRequest { container_id: id.clone(), cmd: vec!["nope".into()], timeout: 5 };
        let error = harness.client.clone().exec_sync(request).await.unwrap_err();
        let text = "exec: \"nope\": executable file not found in $PATH";
        assert_eq!(error.message(), format!("exec in container {id}: {text}"));
    });
}

#[test]
fn an_exec_that_takes_too_long_is_killed() {
    with_runtime(|harness| async move {
        let sandbox = harness.sandbox(|_| {}).await;
        let id = harness.run(&sandbox, command("a", &["/bin/sleep", "1000"])).await;
        let cmd = vec!["/bin/sleep".into(), "4711".into()];
        let request = cri::ExecSyncRequest { container_id: id.clone(), cmd, timeout: 1 };
        let error = harness.client.clone().exec_sync(request).await.unwrap_err();
        assert_eq!(error.code(), tonic::Code::DeadlineExceeded);
        loop {
            let (_, living) = harness.exec(&id, &["ps", "-o", "args"]).await;
            if !living.contains("4711") {
                break;
            }
        }
    });
}

#[test]
fn an_exec_on_a_terminal_can_be_resized() {
    with_runtime(|harness| async move {
        let sandbox = harness.sandbox(|_| {}).await;
        let id = harness.run(&sandbox, command("a", &["/bin/sleep", "1000"])).await;
        let shell =
            ["/bin/sh", "-c", "tty; read line; stty size; echo $TERM; exit 4"].map(str::to_owned);
        let mut running = harness.runtime.exec(&id, shell.to_vec(), Stdio::Terminal).await.unwrap();
        let terminal = running.terminal.take().unwrap();
        terminal.resize(120, 40).unwrap();
        let mut reader = File::from(terminal.try_clone().unwrap().master);
        let mut writer = File::from(terminal.master);
        writer.write_all(b"go\n").unwrap();
        let read = tokio::task::spawn_blocking(move || {
            let (mut text, mut buffer) = (Vec::new(), [0u8; 256]);
            // The end of a terminal is an error.
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                text.extend_from_slice(&buffer[..count]);
            }
            String::from_utf8(text).unwrap()
        });
        assert_eq!(running.wait().await.unwrap(), 4);
        let text = read.await.unwrap();
        assert!(
            text.contains("/dev/pts/") && text.contains("40 120") && text.contains("xterm"),
            "{text}"
        );
    });
}

#[test]
fn a_container_on_a_terminal_logs_what_it_prints() {
    with_runtime(|harness| async move {
        let sandbox = harness.sandbox(|_| {}).await;
        let mut config = script("a", "tty; test -c /dev/console && echo console");
        config.tty = true;
        let (_, output) = harness.run_to_end(&sandbox, config).await;
        assert_eq!(output, "/dev/pts/0\nconsole\n");
    });
}

#[test]
fn who_attaches_speaks_to_the_first_process() {
    with_runtime(|harness| async move {
        let sandbox = harness.sandbox(|_| {}).await;
        let mut config = script("a", "while read line; do echo got $line; done; echo end");
        config.stdin = true;
        config.stdin_once = true;
        let mut events = harness.events().await;
        let id = harness.run(&sandbox, config).await;
        let attached = harness.runtime.attach(&id, true).await.unwrap();
        let mut stdin = File::from(attached.stdin.unwrap());
        stdin.write_all(b"one\ntwo\n").unwrap();
        drop(stdin);
        let mut stdout = File::from(attached.stdout);
        let text = tokio::task::spawn_blocking(move || {
            let mut text = String::new();
            stdout.read_to_string(&mut text).unwrap();
            text
        });
        assert_eq!(text.await.unwrap(), "got one\ngot two\nend\n");
        let status = harness.ended(&mut events, &id).await;
        assert_eq!(status.exit_code, 0);
        assert_eq!(harness.output(&id).await, "got one\ngot two\nend\n");
    });
}

#[test]
fn who_is_attached_and_too_slow_hears_of_it() {
    with_runtime(|harness| async move {
        let sandbox = harness.sandbox(|_| {}).await;
        let text = "read go; head -c 4000000 /dev/zero; echo >&2 end";
        let mut config = script("a", text);
        config.stdin = true;
        let mut events = harness.events().await;
        let id = harness.run(&sandbox, config).await;
        let mut slow = harness.runtime.attach(&id, true).await.unwrap();
        let mut errors_alone = harness.runtime.attach(&id, false).await.unwrap();
        // Who does not want one of the streams is not cut off for it.
        drop(errors_alone.stdout);
        File::from(slow.stdin.take().unwrap()).write_all(b"go\n").unwrap();
        slow.cut.wait().await;
        harness.ended(&mut events, &id).await;
        let mut said = String::new();
        File::from(errors_alone.stderr).read_to_string(&mut said).unwrap();
        assert_eq!(said, "end\n");
        assert!(futures_util::FutureExt::now_or_never(errors_alone.cut.wait()).is_none());
    });
}

#[test]
fn a_port_inside_the_pod_can_be_reached() {
    with_runtime(|harness| async move {
        use tokio::io::AsyncReadExt;
        let sandbox = harness.sandbox(|_| {}).await;
        // A port below 1024, by a user that is not root.
        let text = "echo ready; echo from inside | nc -l -p 80";
        let id = harness.run(&sandbox, script("a", text)).await;
        let refused = harness.runtime.connect(&sandbox, 81).await.unwrap_err();
        assert!(stdx::one_line(&refused).contains("onnection refused"), "{refused:?}");
        let mut text = String::new();
        while text.is_empty() {
            // It listens a moment after it started; an exec takes that moment.
            harness.exec(&id, &["true"]).await;
            if let Ok(mut stream) = harness.runtime.connect(&sandbox, 80).await {
                stream.read_to_string(&mut text).await.unwrap();
            }
        }
        assert_eq!(text, "from inside\n");
    });
}
