//! A small DNS client: resolv.conf, one question at a time, UDP and then TCP.
//!
//! Upstream: RFC 1035 (messages), RFC 2782 (SRV), resolv.conf(5) for search and ndots.

use std::{
    fs,
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

/// Larger answers over UDP are not asked for, so none is longer.
const DATAGRAM_BYTES_MAX: usize = 4096;

/// A name has at most 128 labels; more jumps than that are a loop.
const JUMPS_MAX: u32 = 128;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    A = 1,
    Cname = 5,
    Ptr = 12,
    Txt = 16,
    Aaaa = 28,
    Srv = 33,
}

impl Type {
    const ALL: [(&'static str, Type); 6] = [
        ("A", Type::A),
        ("AAAA", Type::Aaaa),
        ("CNAME", Type::Cname),
        ("PTR", Type::Ptr),
        ("SRV", Type::Srv),
        ("TXT", Type::Txt),
    ];

    pub(crate) fn parse(text: &str) -> Option<Type> {
        let found = Type::ALL.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
        found.map(|(_, kind)| *kind)
    }

    pub(crate) fn name(self) -> &'static str {
        Type::ALL.iter().find(|(_, kind)| *kind == self).map_or("?", |(name, _)| name)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) name: String,
    pub(crate) ttl: u32,
    pub(crate) kind: Type,
    pub(crate) data: String,
}

/// What /etc/resolv.conf says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resolver {
    pub(crate) servers: Vec<SocketAddr>,
    search: Vec<String>,
    ndots: usize,
    timeout: Duration,
    attempts: u32,
}

/// Why there are no records.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Absent {
    NoSuchName,
    NoRecords,
    /// No server answered, or only with an error: asking again may help.
    Failed(String),
}

impl std::fmt::Display for Absent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Absent::NoSuchName => f.write_str("no such name"),
            Absent::NoRecords => f.write_str("the name has no records of this type"),
            Absent::Failed(why) => f.write_str(why),
        }
    }
}

impl Resolver {
    pub(crate) fn system() -> Resolver {
        Resolver::parse(&fs::read_to_string("/etc/resolv.conf").unwrap_or_default())
    }

    fn parse(text: &str) -> Resolver {
        let mut resolver = Resolver {
            servers: Vec::new(),
            search: Vec::new(),
            ndots: 1,
            timeout: Duration::from_secs(5),
            attempts: 2,
        };
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let address = words.next().and_then(|word| word.parse::<IpAddr>().ok());
                    resolver.servers.extend(address.map(|ip| SocketAddr::new(ip, 53)));
                }
                Some("search" | "domain") => resolver.search = words.map(str::to_owned).collect(),
                Some("options") => words.for_each(|word| resolver.option(word)),
                _ => {}
            }
        }
        if resolver.servers.is_empty() {
            resolver.servers.push(SocketAddr::from((Ipv4Addr::LOCALHOST, 53)));
        }
        resolver
    }

    fn option(&mut self, word: &str) {
        let Some((name, value)) = word.split_once(':') else { return };
        let Ok(value) = value.parse::<u32>() else { return };
        match name {
            "ndots" => self.ndots = value.min(15) as usize,
            "timeout" => self.timeout = Duration::from_secs(u64::from(value.clamp(1, 30))),
            "attempts" => self.attempts = value.clamp(1, 5),
            _ => {}
        }
    }

    /// The names to ask for, in order.
    fn candidates(&self, name: &str) -> Vec<String> {
        if name.ends_with('.') {
            return vec![name.to_owned()];
        }
        let as_is = format!("{name}.");
        let mut names: Vec<String> = self
            .search
            .iter()
            .map(|domain| format!("{name}.{}.", domain.trim_end_matches('.')))
            .collect();
        let enough_dots = name.matches('.').count() >= self.ndots;
        names.insert(if enough_dots { 0 } else { names.len() }, as_is);
        names
    }

    /// The records of the first candidate that has some.
    pub(crate) fn lookup(&self, name: &str, kind: Type) -> Result<Vec<Record>, Absent> {
        let mut absent = Absent::NoSuchName;
        for candidate in self.candidates(name) {
            match self.ask(&candidate, kind) {
                Ok(records) => return Ok(records),
                Err(Absent::NoSuchName) => {}
                Err(other) => absent = other,
            }
        }
        Err(absent)
    }

    /// All addresses of a host: itself, /etc/hosts, then DNS.
    pub(crate) fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, Absent> {
        if let Ok(address) = host.parse() {
            return Ok(vec![address]);
        }
        let hosts = fs::read_to_string("/etc/hosts").unwrap_or_default();
        let mut found = in_hosts(&hosts, host);
        if found.is_empty() && host == "localhost" {
            found = vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        }
        if !found.is_empty() {
            return Ok(found);
        }
        let of = |records: Vec<Record>| {
            let addresses = records.into_iter().filter_map(|record| record.data.parse().ok());
            addresses.collect::<Vec<IpAddr>>()
        };
        match self.lookup(host, Type::A) {
            Ok(records) => Ok(of(records)),
            Err(absent) => self.lookup(host, Type::Aaaa).map(of).map_err(|_| absent),
        }
    }

    fn ask(&self, name: &str, kind: Type) -> Result<Vec<Record>, Absent> {
        let mut failure = String::new();
        for _ in 0..self.attempts {
            for server in &self.servers {
                match self.exchange(*server, name, kind) {
                    Ok(answer) => match answer.code {
                        0 if answer.records.is_empty() => return Err(Absent::NoRecords),
                        0 => return Ok(answer.records),
                        3 => return Err(Absent::NoSuchName),
                        code => failure = format!("{server} answers with {}", code_name(code)),
                    },
                    Err(error) if is_timeout(&error) => {
                        failure = format!("{server} does not answer");
                    }
                    Err(error) => failure = format!("ask {server}: {error}"),
                }
            }
        }
        Err(Absent::Failed(failure))
    }

    fn exchange(&self, server: SocketAddr, name: &str, kind: Type) -> io::Result<Answer> {
        let id = random_id()?;
        let question = question(id, name, kind)?;
        let local: IpAddr = match server {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((local, 0))?;
        // Connected: nobody else's packets come in.
        socket.connect(server)?;
        socket.set_read_timeout(Some(self.timeout))?;
        socket.send(&question)?;
        let mut buffer = [0; DATAGRAM_BYTES_MAX];
        let answer = loop {
            let length = socket.recv(&mut buffer)?;
            // A late answer to an earlier question is none to this one.
            if let Some(answer) = parse(&buffer[..length], id, kind) {
                break answer;
            }
        };
        if !answer.truncated {
            return Ok(answer);
        }
        let mut stream = TcpStream::connect_timeout(&server, self.timeout)?;
        stream.set_read_timeout(Some(self.timeout))?;
        stream.set_write_timeout(Some(self.timeout))?;
        let length = u16::try_from(question.len()).map_err(io::Error::other)?;
        stream.write_all(&[&length.to_be_bytes()[..], &question].concat())?;
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut message)?;
        parse(&message, id, kind).ok_or_else(|| io::Error::other("the answer makes no sense"))
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

fn in_hosts(hosts: &str, wanted: &str) -> Vec<IpAddr> {
    let lines = hosts.lines().map(|line| line.split('#').next().unwrap_or_default());
    lines
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let address = words.next()?.parse().ok()?;
            words.any(|name| name.eq_ignore_ascii_case(wanted)).then_some(address)
        })
        .collect()
}

/// `10.0.0.1` is asked for as `1.0.0.10.in-addr.arpa.`.
pub(crate) fn reverse(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa.")
        }
        IpAddr::V6(address) => {
            let digits = address.octets().into_iter().rev();
            let digits = digits.map(|byte| format!("{:x}.{:x}.", byte & 15, byte >> 4));
            format!("{}ip6.arpa.", digits.collect::<String>())
        }
    }
}

fn random_id() -> io::Result<u16> {
    let mut bytes = [0; 2];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u16::from_be_bytes(bytes))
}

fn question(id: u16, name: &str, kind: Type) -> io::Result<Vec<u8>> {
    let mut message = Vec::new();
    // Recursion desired; one question, and one additional record (the size of answers we take).
    for word in [id, 0x0100, 1, 0, 0, 1] {
        message.extend(word.to_be_bytes());
    }
    for label in name.split('.').filter(|label| !label.is_empty()) {
        let length = u8::try_from(label.len()).ok().filter(|length| *length < 64);
        message.push(length.ok_or_else(|| io::Error::other("a part of the name is too long"))?);
        message.extend(label.as_bytes());
    }
    message.push(0);
    message.extend((kind as u16).to_be_bytes());
    message.extend([0, 1]);
    message.extend([0, 0, 41]);
    message.extend((DATAGRAM_BYTES_MAX as u16).to_be_bytes());
    message.extend([0; 6]);
    Ok(message)
}

#[derive(Debug)]
struct Answer {
    code: u8,
    truncated: bool,
    records: Vec<Record>,
}

/// `None` if this is no answer to our question, or a broken one.
fn parse(message: &[u8], id: u16, wanted: Type) -> Option<Answer> {
    let mut reader = Reader { message, at: 0 };
    let (answered, flags) = (reader.number()?, reader.number()?);
    if answered != id || flags & 0x8000 == 0 {
        return None;
    }
    let (questions, answers) = (reader.number()?, reader.number()?);
    reader.at += 4;
    for _ in 0..questions {
        reader.name()?;
        reader.at += 4;
    }
    let mut records = Vec::new();
    for _ in 0..answers {
        let name = reader.name()?;
        let kind = reader.number()?;
        reader.at += 2;
        let ttl = u32::from(reader.number()?) << 16 | u32::from(reader.number()?);
        let length = usize::from(reader.number()?);
        let end = reader.at.checked_add(length).filter(|end| *end <= message.len())?;
        let data = reader.data(kind, end)?;
        reader.at = end;
        if let Some((kind, data)) = data {
            records.push(Record { name, ttl, kind, data });
        }
    }
    // An alias that leads nowhere is no answer.
    if !records.iter().any(|record| record.kind == wanted) {
        records.clear();
    }
    Some(Answer { code: (flags & 15) as u8, truncated: flags & 0x0200 != 0, records })
}

fn code_name(code: u8) -> String {
    match code {
        1 => "FORMERR".to_owned(),
        2 => "SERVFAIL".to_owned(),
        4 => "NOTIMP".to_owned(),
        5 => "REFUSED".to_owned(),
        code => format!("error {code}"),
    }
}

struct Reader<'a> {
    message: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.message.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn number(&mut self) -> Option<u16> {
        Some(u16::from(self.byte()?) << 8 | u16::from(self.byte()?))
    }

    /// A name with its jumps, ending in a dot.
    fn name(&mut self) -> Option<String> {
        let mut name = String::new();
        let mut after = None;
        let mut jumps = 0;
        loop {
            match self.byte()? {
                0 => break,
                high @ 0xc0.. => {
                    let to = usize::from(high & 0x3f) << 8 | usize::from(self.byte()?);
                    after.get_or_insert(self.at);
                    self.at = to;
                    jumps += 1;
                    if jumps > JUMPS_MAX {
                        return None;
                    }
                }
                length @ ..0x40 => {
                    let end = self.at + usize::from(length);
                    let label = self.message.get(self.at..end)?;
                    name.extend(label.iter().map(|byte| match byte {
                        b'!'..=b'~' => char::from(*byte),
                        _ => '?',
                    }));
                    name.push('.');
                    self.at = end;
                }
                _ => return None,
            }
        }
        self.at = after.unwrap_or(self.at);
        if name.is_empty() {
            name.push('.');
        }
        Some(name)
    }

    /// Data as zone files write it; the inner `None` is a type we do not read.
    #[expect(clippy::option_option, reason = "broken and unknown differ")]
    fn data(&mut self, kind: u16, end: usize) -> Option<Option<(Type, String)>> {
        let Some((_, kind)) = Type::ALL.iter().find(|(_, known)| *known as u16 == kind) else {
            return Some(None);
        };
        let bytes = self.message.get(self.at..end)?;
        let text = match kind {
            Type::A => Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).to_string(),
            Type::Aaaa => Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).to_string(),
            Type::Cname | Type::Ptr => self.name()?,
            Type::Srv => {
                let (priority, weight, port) = (self.number()?, self.number()?, self.number()?);
                format!("{priority} {weight} {port} {}", self.name()?)
            }
            Type::Txt => {
                let mut texts = Vec::new();
                while self.at < end {
                    let length = usize::from(self.byte()?);
                    let text = self.message.get(self.at..self.at + length)?;
                    texts.push(format!("{:?}", String::from_utf8_lossy(text)));
                    self.at += length;
                }
                texts.join(" ")
            }
        };
        Some(Some((*kind, text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_searched_first_and_long_ones_last() {
        let resolver = Resolver::parse(
            "nameserver 10.96.0.10\nsearch default.svc.cluster.local svc.cluster.local\noptions ndots:2 timeout:1\n",
        );
        assert_eq!(resolver.servers, ["10.96.0.10:53".parse().unwrap()]);
        assert_eq!(resolver.timeout, Duration::from_secs(1));
        let names = ["web.default.svc.cluster.local.", "web.svc.cluster.local.", "web."];
        assert_eq!(resolver.candidates("web"), names);
        assert_eq!(resolver.candidates("a.b.c")[0], "a.b.c.");
        assert_eq!(resolver.candidates("web."), ["web."]);
    }

    #[test]
    fn reads_compressed_answers_and_refuses_loops() {
        let mut message = question(7, "web.local", Type::Srv).unwrap();
        message.truncate(message.len() - 11);
        (message[2], message[7], message[11]) = (0x81, 1, 0);
        message.extend([0xc0, 12, 0, 33, 0, 1, 0, 0, 0, 30, 0, 8, 0, 1, 0, 2, 0, 80, 0xc0, 12]);
        let answer = parse(&message, 7, Type::Srv).unwrap();
        assert_eq!(
            answer.records,
            [Record {
                name: "web.local.".into(),
                ttl: 30,
                kind: Type::Srv,
                data: "1 2 80 web.local.".into()
            }]
        );
        assert!(parse(&message, 8, Type::Srv).is_none(), "another question's answer");
        for cut in 0..message.len() {
            let _answer = parse(&message[..cut], 7, Type::Srv);
        }
        let end = message.len();
        message[end - 1] = (end - 2) as u8;
        assert!(parse(&message, 7, Type::Srv).is_none(), "a name that points to itself");
    }

    #[test]
    fn hosts_and_reverse_names() {
        let hosts = "127.0.0.1 localhost # web\n10.1.1.1 web-0.nginx web-0\n";
        assert_eq!(in_hosts(hosts, "WEB-0"), ["10.1.1.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(in_hosts(hosts, "web"), Vec::<IpAddr>::new());
        assert_eq!(reverse("10.0.0.1".parse().unwrap()), "1.0.0.10.in-addr.arpa.");
        assert!(reverse("::1".parse().unwrap()).starts_with("1.0.0.0."));
    }

    #[test]
    fn asks_a_server_and_says_when_it_has_nothing() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        let serving = std::thread::spawn(move || {
            for code in [3, 0, 0] {
                let mut buffer = [0; 512];
                let (length, from) = server.recv_from(&mut buffer).unwrap();
                let mut answer = buffer[..length - 11].to_vec();
                (answer[2], answer[3], answer[11]) = (0x81, code, 0);
                if answer[12] == 3 {
                    answer[7] = 1;
                    answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4, 10, 0, 0, 9]);
                }
                server.send_to(&answer, from).unwrap();
            }
        });
        let resolver = Resolver { servers: vec![address], ..Resolver::parse("search local") };
        let records = resolver.lookup("web", Type::A);
        assert_eq!(records.unwrap()[0].data, "10.0.0.9", "the second candidate has it");
        assert_eq!(resolver.lookup("none.", Type::A), Err(Absent::NoRecords));
        serving.join().unwrap();
    }
}
