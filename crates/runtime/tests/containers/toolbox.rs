//! The image that travels inside the binary, and the way to it through the streaming socket.

use crate::harness::{Harness, command, with_runtime};
use futures_util::{SinkExt, StreamExt};
use rpc::cri::{self, image_service_server::ImageService};
use runtime::image::{Images, TOOLBOX_REFERENCE};
use std::{fs, sync::Arc};
use tokio::net::UnixStream;
use tokio_tungstenite::{
    client_async,
    tungstenite::{Message, client::IntoClientRequest},
};

fn toolbox(name: &str, arguments: &[&str]) -> cri::ContainerConfig {
    cri::ContainerConfig {
        image: Some(cri::ImageSpec { image: TOOLBOX_REFERENCE.into(), ..Default::default() }),
        args: arguments.iter().map(|word| (*word).to_owned()).collect(),
        ..command(name, &[])
    }
}

/// One exec session of `kubectl`, from the URL to the outcome: output and status.
async fn session(harness: &Harness, id: &str, cmd: &[&str], input: &[u8]) -> (String, String) {
    let request = cri::ExecRequest {
        container_id: id.to_owned(),
        cmd: cmd.iter().map(|word| (*word).to_owned()).collect(),
        stdin: true,
        stdout: true,
        stderr: true,
        tty: false,
    };
    let url = harness.client.clone().exec(request).await.unwrap().into_inner().url;
    let (socket, path) = runtime::streaming::split_url(&url).unwrap();
    let stream = UnixStream::connect(socket).await.unwrap();
    let mut request = format!("ws://localhost{path}").into_client_request().unwrap();
    request.headers_mut().insert("Sec-WebSocket-Protocol", "v5.channel.k8s.io".parse().unwrap());
    let (mut socket, _) = client_async(request, stream).await.unwrap();
    socket.send(Message::binary([&[0], input].concat())).await.unwrap();
    socket.send(Message::binary(vec![255, 0])).await.unwrap();
    let mut channels = [const { Vec::new() }; 4];
    while let Some(Ok(message)) = socket.next().await {
        if let Message::Binary(data) = message {
            channels[usize::from(data[0])].extend_from_slice(&data[1..]);
        }
    }
    let [_, output, _, status] = channels.map(|bytes| String::from_utf8(bytes).unwrap());
    (output, status)
}

#[test]
fn the_toolbox_serves_answers_exec_and_stops_when_told() {
    with_runtime(|harness| async move {
        let store = runtime::image::ImageStore::open(harness.directory.join("images")).unwrap();
        store.import_builtin().unwrap();
        let data = harness.directory.join("volume");
        fs::create_dir(&data).unwrap();
        let sandbox = harness.sandbox(|_| {}).await;
        let mut config = toolbox("web", &["serve", "/data", "--port", "80"]);
        config.mounts = vec![cri::Mount {
            container_path: "/data".into(),
            host_path: data.to_string_lossy().into_owned(),
            ..Default::default()
        }];
        let id = harness.run(&sandbox, config).await;

        let (output, status) = session(&harness, &id, &["tee", "/data/x"], b"its own text\n").await;
        assert_eq!(output, "its own text\n");
        assert!(status.contains("Success"), "{status}");
        assert_eq!(fs::read(data.join("x")).unwrap(), b"its own text\n");
        let mut got = harness.exec(&id, &["get", "http://localhost/x"]).await;
        while got.1.contains("Connection refused") {
            got = harness.exec(&id, &["get", "http://localhost/x"]).await;
        }
        assert_eq!(got, (0, "its own text\n".to_owned()));
        let (_, status) = session(&harness, &id, &["get", "http://localhost/none"], b"").await;
        assert!(status.contains(r#""causes":[{"message":"1","reason":"ExitCode"}]"#), "{status}");

        let removed = Images::new(store, Default::default(), Arc::new(stdx::SystemClock), {
            let id = id.clone();
            move |_: &str| Some(id.clone())
        });
        let spec = cri::ImageSpec { image: TOOLBOX_REFERENCE.into(), ..Default::default() };
        let request = tonic::Request::new(cri::RemoveImageRequest { image: Some(spec) });
        assert!(removed.remove_image(request).await.unwrap_err().message().contains("in use"));

        // With its whole grace period the test would time out: the first process answers signals.
        harness.stop(&id, 600).await;
        assert_eq!(harness.status(&id).await.exit_code, 0);
    });
}
