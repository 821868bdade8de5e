//! Network namespaces that tests make themselves: the host's is never touched.

use rustix::thread::{UnshareFlags, gettid, unshare_unsafe};
use std::{io::Write, net::UdpSocket, sync::mpsc, thread};

/// Runs `test` on a thread whose network namespace is new and empty, with an event loop.
pub(crate) fn in_own_namespace(test: impl AsyncFnOnce() + Send + 'static) {
    let work = || {
        // SAFETY: only the network namespace changes, no table of descriptors; the thread is ours
        // and ends with the test.
        if let Err(error) = unsafe { unshare_unsafe(UnshareFlags::NEWNET) } {
            // Past the harness, which hides what passing tests print.
            let _lost = writeln!(std::io::stderr(), "skipped: no network namespace: {error}");
            return;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test());
    };
    thread::spawn(work).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

/// Stands for a pod: a thread in a namespace of its own, which does what it is sent.
pub(crate) struct Pod {
    pub(crate) id: u32,
    work: Option<mpsc::Sender<Box<dyn FnOnce() + Send>>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Pod {
    pub(crate) fn new() -> Pod {
        let (work, works) = mpsc::channel::<Box<dyn FnOnce() + Send>>();
        let (says, said) = mpsc::channel();
        let thread = thread::spawn(move || {
            // SAFETY: as above.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.unwrap();
            says.send(gettid().as_raw_nonzero().get().unsigned_abs()).unwrap();
            works.into_iter().for_each(|work| work());
        });
        Pod { id: said.recv().unwrap(), work: Some(work), thread: Some(thread) }
    }

    pub(crate) fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (says, said) = mpsc::channel();
        let work = Box::new(move || says.send(work()).unwrap());
        self.work.as_ref().unwrap().send(work).unwrap();
        said.recv().unwrap()
    }

    /// Sends a datagram there and says what came back.
    pub(crate) fn ask(&self, server: std::net::SocketAddr) -> String {
        self.run(move || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.connect(server).unwrap();
            socket.send(b"hello").unwrap();
            let mut bytes = [0; 64];
            let length = socket.recv(&mut bytes).unwrap();
            String::from_utf8_lossy(&bytes[..length]).into_owned()
        })
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.work.take();
        let _ended = self.thread.take().map(thread::JoinHandle::join);
    }
}
