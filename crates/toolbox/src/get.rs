//! get: fetches a page over HTTP and prints it. Anything but success is an exit code that is not 0.

use crate::{Attempt, Failure, Outcome, dns::Resolver};
use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

/// From start to end, unless --timeout says otherwise.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Status line and headers together.
const HEAD_BYTES_MAX: u64 = 64 * 1024;

pub(crate) fn get(words: &[String]) -> Outcome {
    let (timeout, url) = match words {
        [flag, seconds, url] if flag == "--timeout" => {
            let seconds = seconds.parse().map_err(|_| Failure::Usage)?;
            (Duration::try_from_secs_f64(seconds).map_err(|_| Failure::Usage)?, url)
        }
        [url] if !url.starts_with('-') => (TIMEOUT, url),
        _ => return Err(Failure::Usage),
    };
    let deadline = Instant::now() + timeout;
    let target = Target::parse(url).attempt(|| url.clone())?;
    let stream = connect(&target, deadline).attempt(|| url.clone())?;
    let status = fetch(stream, &target, deadline, &mut io::stdout().lock()).map_err(|error| {
        let timed_out = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
        let why = if timed_out { "timed out".to_owned() } else { error.to_string() };
        Failure::Because(format!("{url}: {why}"))
    })?;
    match status.split(' ').next() {
        Some(code) if code.starts_with('2') => Ok(()),
        _ => Err(Failure::Because(format!("{url}: {status}"))),
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Target {
    host: String,
    port: u16,
    path: String,
}

impl Target {
    fn parse(url: &str) -> Result<Target, &'static str> {
        let rest = match url.split_once("://") {
            Some(("http", rest)) => rest,
            Some(_) => return Err("only http is spoken"),
            None => url,
        };
        let (authority, path) = match rest.find(['/', '?']) {
            Some(at) if rest[at..].starts_with('?') => (&rest[..at], format!("/{}", &rest[at..])),
            Some(at) => (&rest[..at], rest[at..].to_owned()),
            None => (rest, "/".to_owned()),
        };
        let path = path.split('#').next().unwrap_or_default().to_owned();
        let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, port)) => (host, port.strip_prefix(':')),
            None => match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        let port = match port {
            Some(port) => port.parse().map_err(|_| "its port is no port")?,
            None => 80,
        };
        if host.is_empty() || path.bytes().any(|byte| byte <= b' ') {
            return Err("this is no URL");
        }
        Ok(Target { host: host.to_owned(), port, path })
    }
}

fn connect(target: &Target, deadline: Instant) -> Result<TcpStream, String> {
    let addresses = Resolver::system()
        .addresses(&target.host)
        .map_err(|absent| format!("look up {}: {absent}", target.host))?;
    let mut failure = String::new();
    for address in addresses {
        let address = SocketAddr::new(address, target.port);
        let connected = left(deadline).and_then(|left| TcpStream::connect_timeout(&address, left));
        match connected {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = format!("connect to {address}: {error}"),
        }
    }
    Err(failure)
}

fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// Every read has what is left of the time, not the whole of it anew.
struct Timed {
    stream: TcpStream,
    deadline: Instant,
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(left(self.deadline)?))?;
        self.stream.read(buffer)
    }
}

/// Writes the body to `to` and returns the status, such as `200 OK`.
fn fetch(
    mut stream: TcpStream,
    target: &Target,
    deadline: Instant,
    to: &mut impl Write,
) -> io::Result<String> {
    let host = match target.host.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) => format!("[{address}]"),
        _ => target.host.clone(),
    };
    let port = if target.port == 80 { String::new() } else { format!(":{}", target.port) };
    stream.set_write_timeout(Some(left(deadline)?))?;
    let path = &target.path;
    stream.write_all(
        format!("GET {path} HTTP/1.1\r\nHost: {host}{port}\r\nUser-Agent: toolbox\r\nAccept: */*\r\nConnection: close\r\n\r\n")
            .as_bytes(),
    )?;
    let mut reader = BufReader::new(Timed { stream, deadline });
    let (mut status, mut headers) = head(&mut reader)?;
    // 100 Continue and its like come before the answer.
    while status.starts_with('1') {
        (status, headers) = head(&mut reader)?;
    }
    let header = |name: &str| {
        let found = headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    };
    if status.starts_with("204") || status.starts_with("304") {
    } else if header("transfer-encoding").is_some_and(|how| how.eq_ignore_ascii_case("chunked")) {
        chunks(&mut reader, to)?;
    } else if let Some(length) = header("content-length") {
        let length = length.parse().map_err(|_| io::Error::other("bad Content-Length"))?;
        exactly(&mut reader, length, to)?;
    } else {
        io::copy(&mut reader, to)?;
    }
    to.flush()?;
    Ok(status)
}

type Headers = Vec<(String, String)>;

fn head(reader: &mut impl BufRead) -> io::Result<(String, Headers)> {
    let mut reader = reader.take(HEAD_BYTES_MAX);
    let mut line = || {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if !line.ends_with('\n') {
            return Err(io::Error::other("the answer ends within its headers"));
        }
        Ok(line.trim_end_matches(['\r', '\n']).to_owned())
    };
    let first = line()?;
    let status = first.strip_prefix("HTTP/1.").and_then(|rest| rest.split_once(' '));
    let status = status.ok_or_else(|| io::Error::other("the answer is not HTTP"))?.1.to_owned();
    let mut headers = Vec::new();
    loop {
        let line = line()?;
        if line.is_empty() {
            return Ok((status, headers));
        }
        if let Some((name, value)) = line.split_once(':') {
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
    }
}

fn exactly(reader: &mut impl Read, length: u64, to: &mut impl Write) -> io::Result<()> {
    let copied = io::copy(&mut reader.take(length), to)?;
    if copied < length {
        return Err(io::Error::other(format!("the answer ends after {copied} of {length} bytes")));
    }
    Ok(())
}

fn chunks(reader: &mut impl BufRead, to: &mut impl Write) -> io::Result<()> {
    loop {
        let mut line = String::new();
        reader.by_ref().take(256).read_line(&mut line)?;
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = u64::from_str_radix(size, 16)
            .map_err(|_| io::Error::other("the answer ends within its chunks"))?;
        if size == 0 {
            return Ok(());
        }
        exactly(reader, size, to)?;
        reader.read_exact(&mut [0; 2])?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// What `answer` comes to for the program.
    fn check(answer: &'static str, expected: Result<(&str, &str), &str>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let serving = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = BufReader::new(stream.try_clone().unwrap());
            let mut line = String::from("x");
            while !line.trim().is_empty() {
                line.clear();
                request.read_line(&mut line).unwrap();
            }
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let target = Target::parse(&format!("http://{address}/x")).unwrap();
        let deadline = Instant::now() + TIMEOUT;
        let stream = connect(&target, deadline).unwrap();
        let mut body = Vec::new();
        let status = fetch(stream, &target, deadline, &mut body);
        serving.join().unwrap();
        let body = String::from_utf8(body).unwrap();
        let found = status.as_ref().map(|status| (status.as_str(), body.as_str()));
        assert_eq!(found.map_err(ToString::to_string), expected.map_err(str::to_owned));
    }

    #[test]
    fn reads_bodies_of_every_form_and_notices_short_ones() {
        check("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", Ok(("200 OK", "hi")));
        check("HTTP/1.0 404 Not Found\r\n\r\nno", Ok(("404 Not Found", "no")));
        check(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x\r\nhi\r\n1\r\n!\r\n0\r\n\r\n",
            Ok(("200 OK", "hi!")),
        );
        check(
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhi",
            Err("the answer ends after 2 of 5 bytes"),
        );
        check("HTTP/1.1 200 OK\r\nX: ", Err("the answer ends within its headers"));
        check("hello\r\n", Err("the answer is not HTTP"));
    }

    #[test]
    fn takes_urls_apart() {
        let parsed =
            |url: &str| Target::parse(url).map(|t| format!("{} {} {}", t.host, t.port, t.path));
        assert_eq!(parsed("http://web-0.nginx").as_deref(), Ok("web-0.nginx 80 /"));
        assert_eq!(parsed("web:81/a?b#c").as_deref(), Ok("web 81 /a?b"));
        assert_eq!(parsed("http://[::1]:8080?q").as_deref(), Ok("::1 8080 /?q"));
        assert!(parsed("https://web").is_err() && parsed("http://web/a b").is_err());
    }
}
