//! Logs go to stderr: text for people, JSON for machines.

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

#[derive(Args, Clone, Debug)]
pub(crate) struct Flags {
    /// How logs are written
    #[arg(long, global = true, value_enum, default_value_t = Format::Text)]
    log_format: Format,
    /// Say more; twice: everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Text,
    Json,
}

impl Flags {
    pub(crate) fn start(&self) {
        let ours = match self.verbose {
            0 => "warn",
            1 => "info",
            _ => "debug",
        };
        // Wire libraries chatter below `info`; what they say there is of no use to a user.
        let default = format!("{ours},hyper=info,h2=info,rustls=info,tonic=info");
        let filter = EnvFilter::try_from_env("STANCHION_LOG").unwrap_or_else(|_| default.into());
        let builder =
            tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
        match self.log_format {
            Format::Text => builder.init(),
            Format::Json => builder.json().init(),
        }
    }
}
