//! `stanchion token`: bootstrap tokens, with which nodes join. They are Secrets of kube-system, so the
//! running server is asked.
//!
//! Upstream: `cmd/kubeadm/app/cmd/token.go`.

use crate::{
    config::{DataDir, Life},
    connection::Connection,
    node,
};
use anyhow::{Context, Result, bail};
use base64::{Engine, engine::general_purpose::STANDARD};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::path::PathBuf;
use stdx::{Clock, Entropy, SystemClock, SystemEntropy, Timestamp};

const SECRETS: &str = "/api/v1/namespaces/kube-system/secrets";
const KIND: &str = "bootstrap.kubernetes.io/token";
const PREFIX: &str = "bootstrap-token-";
const GROUPS: &str = "system:bootstrappers:nodes";

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Make a token and print it
    Create(Create),
    /// Show every token, without its secret
    List(Reached),
    /// Take a token away, by its id or as a whole
    Delete(Delete),
}

/// Which server is asked.
#[derive(Args)]
pub(crate) struct Reached {
    #[command(flatten)]
    data: DataDir,
    /// The admin's kubeconfig [default: DATA/admin.kubeconfig]
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct Create {
    #[command(flatten)]
    reached: Reached,
    /// How long it is good for: 90m, 24h, 7d; 0: until it is deleted
    #[arg(long, default_value = "24h")]
    ttl: Life,
    /// Print the command with which a machine joins as a node
    #[arg(long)]
    print_join_command: bool,
    /// What it is for
    #[arg(long, default_value = "")]
    description: String,
}

#[derive(Args)]
pub(crate) struct Delete {
    #[command(flatten)]
    reached: Reached,
    /// `abcdef` or `abcdef.0123456789abcdef`
    token: String,
}

pub(crate) fn run(command: &Command) -> Result<()> {
    match command {
        Command::Create(it) => create(it),
        Command::List(it) => list(it),
        Command::Delete(it) => delete(it),
    }
}

impl Reached {
    fn connect(&self) -> Result<Connection> {
        let path = match &self.kubeconfig {
            Some(path) => path.clone(),
            None => self.data.existing()?.join("admin.kubeconfig"),
        };
        Connection::open(&path)
    }
}

fn create(flags: &Create) -> Result<()> {
    let life = flags.ttl.0;
    let (id, secret) = (letters(6), letters(16));
    let mut data = json!({
        "token-id": id, "token-secret": secret, "auth-extra-groups": GROUPS,
        "usage-bootstrap-authentication": "true", "usage-bootstrap-signing": "true",
    });
    if !flags.description.is_empty() {
        data["description"] = flags.description.as_str().into();
    }
    if !life.is_zero() {
        data["expiration"] = SystemClock.now().plus(life).rfc3339().into();
    }
    let object = json!({
        "apiVersion": "v1", "kind": "Secret", "type": KIND, "stringData": data,
        "metadata": {"name": format!("{PREFIX}{id}"), "namespace": "kube-system"},
    });
    let mut server = flags.reached.connect()?;
    server.call("POST", SECRETS, Some(&object)).context("create a token")?;
    // With it a node knows the server, before it is known there itself.
    let token = format!("{id}.{secret}.{}", node::hash_of(server.ca())?);
    match flags.print_join_command {
        true => println!("stanchion node --server {} --token {token}", server.url()),
        false => println!("{token}"),
    }
    Ok(())
}

fn list(reached: &Reached) -> Result<()> {
    let path = format!("{SECRETS}?fieldSelector=type%3Dbootstrap.kubernetes.io%2Ftoken");
    let found = reached.connect()?.call("GET", &path, None).context("list tokens")?;
    println!("{:<8} {:<22} {:<24} DESCRIPTION", "ID", "EXPIRES", "GROUPS");
    for secret in found["items"].as_array().into_iter().flatten() {
        let text = |key: &str| {
            let bytes = STANDARD.decode(secret["data"][key].as_str().unwrap_or_default());
            String::from_utf8(bytes.unwrap_or_default()).unwrap_or_default()
        };
        let expires = match text("expiration") {
            it if it.is_empty() => "never".to_owned(),
            it if Timestamp::parse(&it).is_some_and(|it| it <= SystemClock.now()) => {
                format!("{it} (over)")
            }
            it => it,
        };
        let (id, groups) = (text("token-id"), text("auth-extra-groups"));
        println!("{id:<8} {expires:<22} {groups:<24} {}", text("description"));
    }
    Ok(())
}

fn delete(flags: &Delete) -> Result<()> {
    let id = flags.token.split('.').next().unwrap_or_default();
    if id.len() != 6 || !id.bytes().all(|it| it.is_ascii_lowercase() || it.is_ascii_digit()) {
        bail!("delete token {id:?}: an id has six small letters or digits");
    }
    let mut server = flags.reached.connect()?;
    let path = format!("{SECRETS}/{PREFIX}{id}");
    let _gone: Value =
        server.call("DELETE", &path, None).with_context(|| format!("delete token {id}"))?;
    println!("token {id} deleted");
    Ok(())
}

fn letters(count: usize) -> String {
    const ALL: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let entropy = SystemEntropy::default();
    let letter = |_| char::from(ALL[usize::try_from(entropy.below(36)).unwrap_or_default()]);
    (0..count).map(letter).collect()
}
