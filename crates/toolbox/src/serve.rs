//! serve: a directory over HTTP, with a health page. One thread per connection, a bounded number.

use crate::{Attempt, Failure, Outcome};
use std::{
    ffi::CString,
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::Path,
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::Duration,
};

/// Beyond it, connections wait in the kernel's queue until another ends.
const CONNECTIONS_MAX: usize = 128;

/// Request line and headers together.
const HEAD_BYTES_MAX: u64 = 16 * 1024;

/// An idle or stuck client keeps its thread this long.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// How long a client may take to notice the end of an answer.
const GOODBYE_MAX: Duration = Duration::from_secs(1);

/// The buffers are on the heap; parsing needs little.
const STACK_BYTES: usize = 128 * 1024;

pub(crate) fn serve(words: &[String]) -> Outcome {
    let (directory, port) = match words {
        [directory] => (directory, 8080),
        [directory, flag, port] | [flag, port, directory] if flag == "--port" => {
            (directory, port.parse().map_err(|_| Failure::Usage)?)
        }
        _ => return Err(Failure::Usage),
    };
    let root = File::open(directory).attempt(|| format!("open {directory}"))?;
    let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    let listener = TcpListener::bind(any)
        .or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))
        .attempt(|| format!("listen on port {port}"))?;
    println!("serving {directory} on port {port}");
    run(&listener, root)
}

fn run(listener: &TcpListener, root: File) -> Outcome {
    let root = Arc::new(root);
    let places = Arc::new((Mutex::new(CONNECTIONS_MAX), Condvar::new()));
    loop {
        let place = Place::take(&places);
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            // The client is gone again, or descriptors are short until another connection ends.
            Err(error) => {
                eprintln!("accept: {error}");
                continue;
            }
        };
        let root = root.clone();
        let serving = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(move || {
            let _place = place;
            // A client that goes away in the middle is no concern of the server's.
            if converse(&stream, &root).is_ok() {
                say_goodbye(&stream);
            }
        });
        if let Err(error) = serving {
            eprintln!("start a thread: {error}");
        }
    }
}

/// One of the connections at a time, given back when dropped.
struct Place(Arc<(Mutex<usize>, Condvar)>);

impl Place {
    fn take(places: &Arc<(Mutex<usize>, Condvar)>) -> Place {
        let (free, changed) = &**places;
        let free = free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free =
            changed.wait_while(free, |free| *free == 0).unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        Place(places.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.1.notify_one();
    }
}

/// Answers requests until one of the two ends the connection.
fn converse(stream: &TcpStream, root: &File) -> io::Result<()> {
    stream.set_read_timeout(Some(IDLE_MAX))?;
    stream.set_write_timeout(Some(IDLE_MAX))?;
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    loop {
        let request = match Request::read(&mut reader)? {
            Received::Nothing => return Ok(()),
            Received::Bad(status) => {
                return Answer::text(status, status).send(stream, false, false);
            }
            Received::Request(request) => request,
        };
        let answer = match request.method.as_str() {
            "GET" | "HEAD" => answer(root, &request.target),
            _ => Answer {
                allow: true,
                ..Answer::text("405 Method Not Allowed", "405 Method Not Allowed")
            },
        };
        if request.target != "/healthz" {
            let from = stream
                .peer_addr()
                .map_or_else(|_| "-".to_owned(), |from| from.ip().to_canonical().to_string());
            println!(
                "{from} {} {} {}",
                request.method,
                request.target.escape_debug(),
                answer.status
            );
        }
        answer.send(stream, request.method == "HEAD", request.keep)?;
        if !request.keep {
            return Ok(());
        }
    }
}

/// Closing with unread bytes would reset the connection, and the client could lose the answer: say that
/// this was all, and read a little of what it still sends.
fn say_goodbye(mut stream: &TcpStream) {
    let asked = stream.shutdown(std::net::Shutdown::Write);
    let asked = asked.and_then(|()| stream.set_read_timeout(Some(GOODBYE_MAX)));
    let mut rest = [0; 4096];
    for _ in 0..16 {
        if asked.is_err() || !stream.read(&mut rest).is_ok_and(|read| read > 0) {
            return;
        }
    }
}

struct Request {
    method: String,
    target: String,
    /// The client may send another one on this connection.
    keep: bool,
}

enum Received {
    Nothing,
    Bad(&'static str),
    Request(Request),
}

impl Request {
    fn read(reader: &mut impl BufRead) -> io::Result<Received> {
        let mut head = reader.take(HEAD_BYTES_MAX);
        let mut line = String::new();
        // An empty line before a request is forgiven, as RFC 9112 asks.
        for _ in 0..2 {
            line.clear();
            if head.read_line(&mut line)? == 0 {
                return Ok(Received::Nothing);
            }
            if !line.trim().is_empty() {
                break;
            }
        }
        let words: Vec<&str> = line.trim_end().split(' ').collect();
        let [method, target, version] = words[..] else {
            return Ok(Received::Bad("400 Bad Request"));
        };
        let mut keep = match version {
            "HTTP/1.1" => true,
            "HTTP/1.0" => false,
            _ => return Ok(Received::Bad("505 HTTP Version Not Supported")),
        };
        // Proxies send the whole URL.
        let target = match target.strip_prefix("http://") {
            Some(rest) => rest.find('/').map_or("/", |at| &rest[at..]),
            None => target,
        };
        let (method, target) = (method.to_owned(), target.to_owned());
        loop {
            line.clear();
            if head.read_line(&mut line)? == 0 {
                return Ok(Received::Bad("431 Request Header Fields Too Large"));
            }
            let line = line.trim_end();
            if line.is_empty() {
                return Ok(Received::Request(Request { method, target, keep }));
            }
            let Some((name, value)) = line.split_once(':') else {
                return Ok(Received::Bad("400 Bad Request"));
            };
            let value = value.trim();
            if name.eq_ignore_ascii_case("connection") {
                keep = match () {
                    () if value.eq_ignore_ascii_case("close") => false,
                    () if value.eq_ignore_ascii_case("keep-alive") => true,
                    () => keep,
                };
            }
            // Bodies are not read: the connection ends rather than take one for a request.
            let has_body = name.eq_ignore_ascii_case("content-length") && value != "0"
                || name.eq_ignore_ascii_case("transfer-encoding");
            keep &= !has_body;
        }
    }
}

struct Answer {
    status: &'static str,
    content_type: &'static str,
    location: Option<String>,
    allow: bool,
    body: Body,
}

enum Body {
    Text(String),
    File(File, u64),
}

impl Answer {
    fn text(status: &'static str, text: impl Into<String>) -> Answer {
        let body = Body::Text(format!("{}\n", text.into()));
        let content_type = "text/plain; charset=utf-8";
        Answer { status, content_type, location: None, allow: false, body }
    }

    fn send(self, mut stream: &TcpStream, head_only: bool, keep: bool) -> io::Result<()> {
        let length = match &self.body {
            Body::Text(text) => text.len() as u64,
            Body::File(_, length) => *length,
        };
        let mut head = format!(
            "HTTP/1.1 {}\r\nContent-Type: {}\r\nContent-Length: {length}\r\nConnection: {}\r\n",
            self.status,
            self.content_type,
            if keep { "keep-alive" } else { "close" }
        );
        if let Some(location) = self.location {
            head.push_str(&format!("Location: {location}\r\n"));
        }
        if self.allow {
            head.push_str("Allow: GET, HEAD\r\n");
        }
        head.push_str("\r\n");
        if let (Body::Text(text), false) = (&self.body, head_only) {
            head.push_str(text);
        }
        stream.write_all(head.as_bytes())?;
        if let (Body::File(file, length), false) = (self.body, head_only) {
            let sent = io::copy(&mut file.take(length), &mut stream)?;
            if sent < length {
                // The file became shorter meanwhile: only the end of the connection can say so.
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }
}

fn answer(root: &File, target: &str) -> Answer {
    let path = target.split(['?', '#']).next().unwrap_or_default();
    if path == "/healthz" {
        return Answer::text("200 OK", "ok");
    }
    let Some(name) = decoded(path).filter(|name| name.starts_with('/')) else {
        return Answer::text("400 Bad Request", "400 Bad Request");
    };
    if name.split('/').any(|part| part == "..") {
        return Answer::text("404 Not Found", "404 Not Found");
    }
    match page(root, path, name.trim_matches('/')) {
        Ok(answer) => answer,
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                Answer::text("404 Not Found", "404 Not Found")
            }
            _ => {
                // EXDEV and ELOOP: a link that leads outside is as good as forbidden.
                let outside = matches!(error.raw_os_error(), Some(libc::EXDEV | libc::ELOOP));
                if outside || error.kind() == io::ErrorKind::PermissionDenied {
                    return Answer::text("403 Forbidden", "403 Forbidden");
                }
                eprintln!("read {name}: {error}");
                Answer::text("500 Internal Server Error", "500 Internal Server Error")
            }
        },
    }
}

fn page(root: &File, path: &str, name: &str) -> io::Result<Answer> {
    let found = open_beneath(root, name)?;
    let kind = found.metadata()?;
    if !kind.is_dir() {
        return file_page(found, name);
    }
    if !path.ends_with('/') {
        let location = format!("{path}/");
        let moved = Answer::text("301 Moved Permanently", "301 Moved Permanently");
        return Ok(Answer { location: Some(location), ..moved });
    }
    let index =
        if name.is_empty() { "index.html".to_owned() } else { format!("{name}/index.html") };
    match open_beneath(root, &index) {
        Ok(file) => file_page(file, &index),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Answer {
            content_type: "text/html; charset=utf-8",
            ..Answer::text("200 OK", listing(&found, name)?)
        }),
        Err(error) => Err(error),
    }
}

fn file_page(file: File, name: &str) -> io::Result<Answer> {
    let found = file.metadata()?;
    if !found.is_file() {
        // A pipe or a device could block or never end.
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let body = Body::File(file, found.len());
    let content_type = match Path::new(name).extension().and_then(|end| end.to_str()) {
        Some("html" | "htm") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("json") => "application/json",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("jpg" | "jpeg") => "image/jpeg",
        Some("txt" | "md" | "log" | "yaml") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    };
    Ok(Answer { status: "200 OK", content_type, location: None, allow: false, body })
}

/// The kernel keeps the path below the directory, links included (configMap volumes are made of links).
fn open_beneath(root: &File, name: &str) -> io::Result<File> {
    let name = CString::new(if name.is_empty() { "." } else { name })?;
    // SAFETY: all zeros is a valid open_how.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    // Not blocking: opening a pipe must not wait for its writer.
    how.flags = (libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK) as u64;
    how.resolve = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_MAGICLINKS;
    // SAFETY: the name is terminated and `how` has the size that is stated; both outlive the call.
    let opened = unsafe {
        libc::syscall(
            libc::SYS_openat2,
            root.as_raw_fd(),
            name.as_ptr(),
            &raw const how,
            size_of::<libc::open_how>(),
        )
    };
    if opened < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and nobody else's.
    let opened = unsafe { OwnedFd::from_raw_fd(opened as libc::c_int) };
    Ok(File::from(opened))
}

fn listing(directory: &File, name: &str) -> io::Result<String> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/self/fd/{}", directory.as_raw_fd()))? {
        let entry = entry?;
        let slash = if entry.file_type()?.is_dir() { "/" } else { "" };
        names.push(format!("{}{slash}", entry.file_name().to_string_lossy()));
    }
    names.sort();
    let title = escaped(&format!("/{name}"));
    let mut page = format!("<!doctype html>\n<title>{title}</title>\n<h1>{title}</h1>\n<ul>\n");
    for name in names {
        page.push_str(&format!("<li><a href=\"./{}\">{}</a>\n", encoded(&name), escaped(&name)));
    }
    page.push_str("</ul>");
    Ok(page)
}

fn escaped(text: &str) -> String {
    let pairs = [('&', "&amp;"), ('<', "&lt;"), ('>', "&gt;"), ('"', "&quot;")];
    pairs.iter().fold(text.to_owned(), |text, (from, to)| text.replace(*from, to))
}

fn encoded(name: &str) -> String {
    let mut text = String::new();
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                text.push(char::from(byte));
            }
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

/// Undoes percent-encoding once; `None` for what is no encoding or no text.
fn decoded(path: &str) -> Option<String> {
    let mut bytes = path.bytes();
    let mut name = Vec::new();
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                (digit(bytes.next())? << 4 | digit(bytes.next())?) as u8
            }
            byte => byte,
        };
        if byte == 0 {
            return None;
        }
        name.push(byte);
    }
    String::from_utf8(name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    struct Site {
        directory: std::path::PathBuf,
        address: SocketAddr,
    }

    impl Site {
        fn new(name: &str) -> Site {
            let directory =
                std::env::temp_dir().join(format!("toolbox-{}-{name}", std::process::id()));
            let root = directory.join("root");
            fs::create_dir_all(root.join("sub dir")).unwrap();
            fs::write(root.join("a.txt"), "hello").unwrap();
            fs::write(root.join("sub dir/index.html"), "index").unwrap();
            fs::write(directory.join("secret"), "secret").unwrap();
            std::os::unix::fs::symlink("../secret", root.join("out")).unwrap();
            std::os::unix::fs::symlink("a.txt", root.join("in")).unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let root = File::open(root).unwrap();
            std::thread::spawn(move || run(&listener, root));
            Site { directory, address }
        }

        fn send(&self, request: &str) -> String {
            let mut stream = TcpStream::connect(self.address).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        }

        fn check(&self, target: &str, status: &str, body: &str) {
            let answer = self.send(&format!("GET {target} HTTP/1.0\r\n\r\n"));
            let (head, found) = answer.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{target}: {head}");
            assert!(found.contains(body), "{target}: {found}");
            assert!(head.contains(&format!("Content-Length: {}", found.len())), "{head}");
        }
    }

    impl Drop for Site {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.directory).unwrap();
        }
    }

    #[test]
    fn serves_files_indexes_listings_and_health() {
        let site = Site::new("serves");
        site.check("/healthz", "200", "ok\n");
        site.check("/a.txt?x=1", "200", "hello");
        site.check("/%61.txt", "200", "hello");
        site.check("/in", "200", "hello");
        site.check("/sub%20dir", "301", "");
        site.check("/sub%20dir/", "200", "index");
        site.check("/", "200", "<a href=\"./sub%20dir/\">sub dir/</a>");
        site.check("/none", "404", "");
        assert!(site.send("HEAD /a.txt HTTP/1.0\r\n\r\n").ends_with("\r\n\r\n"));
        assert!(site.send("PUT /a.txt HTTP/1.0\r\n\r\n").starts_with("HTTP/1.1 405"));
    }

    #[test]
    fn nothing_outside_the_directory_is_served() {
        let site = Site::new("outside");
        for target in ["/../secret", "/%2e%2e/secret", "/sub%20dir/../../secret", "/..%2fsecret"] {
            site.check(target, "404", "");
        }
        site.check("/out", "403", "");
        site.check("/a%00.txt", "400", "");
        site.check("secret", "400", "");
    }

    #[test]
    fn a_connection_carries_many_requests_but_never_a_body() {
        let site = Site::new("keep");
        let twice = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n".repeat(2);
        assert_eq!(site.send(&twice).matches("200 OK").count(), 2);
        let smuggled =
            "GET /healthz HTTP/1.1\r\nContent-Length: 50\r\n\r\nGET /a.txt HTTP/1.1\r\n\r\n";
        assert_eq!(site.send(smuggled).matches("HTTP/1.1 ").count(), 1);
        let long = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(20_000));
        assert!(site.send(&long).starts_with("HTTP/1.1 4"));
        assert_eq!(site.send("hello\r\n\r\n").split(' ').nth(1), Some("400"));
    }
}
