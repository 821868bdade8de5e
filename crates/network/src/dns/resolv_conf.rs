//! The host's own resolvers, read from its resolv.conf, again whenever that file changes.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

/// As many as the C library asks: MAXNS.
const SERVERS_MAX: usize = 3;

const PORT: u16 = 53;

#[derive(Debug)]
pub(crate) struct ResolvConf {
    path: PathBuf,
    /// Asking ourselves would go round for ever.
    own: Vec<SocketAddr>,
    read: Mutex<Option<(SystemTime, Vec<SocketAddr>)>>,
}

impl ResolvConf {
    pub(crate) fn new(path: PathBuf, own: Vec<SocketAddr>) -> ResolvConf {
        ResolvConf { path, own, read: Mutex::default() }
    }

    /// The resolvers to ask, best first. Empty where the file is missing or names none but us.
    pub(crate) fn servers(&self) -> Vec<SocketAddr> {
        let Ok(changed) = fs::metadata(&self.path).and_then(|it| it.modified()) else {
            return Vec::new();
        };
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, servers)) = &*read
            && *at == changed
        {
            return servers.clone();
        }
        let text = fs::read_to_string(&self.path).unwrap_or_default();
        let mut servers = parse(&text);
        servers.retain(|it| !self.own.contains(it));
        servers.truncate(SERVERS_MAX);
        *read = Some((changed, servers.clone()));
        servers
    }
}

fn parse(text: &str) -> Vec<SocketAddr> {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        (words.next()? == "nameserver").then_some(())?;
        let address: IpAddr = words.next()?.parse().ok()?;
        Some(SocketAddr::new(address, PORT))
    };
    text.lines().filter_map(server).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_name_servers_except_ourselves() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("resolv.conf");
        let own = vec!["10.96.0.10:53".parse().unwrap()];
        let conf = ResolvConf::new(path.clone(), own);
        assert_eq!(conf.servers(), []);
        let text = "# made by hand\nsearch example.com\nnameserver 10.96.0.10\n\
                    nameserver 192.0.2.1 # first\n nameserver fd00::1\nnameserver nonsense\n\
                    options ndots:2\nnameserver 192.0.2.3\nnameserver 192.0.2.4\n";
        fs::write(&path, text).unwrap();
        let servers: Vec<String> = conf.servers().iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["192.0.2.1:53", "[fd00::1]:53", "192.0.2.3:53"]);
    }
}
