//! What etcd says instead of doing it, by what that leaves open.

use super::connection::ANSWER;
use crate::StoreError;
use tonic::{Code, ConnectError, Status};

#[derive(Debug)]
pub(super) enum Failed {
    Compacted,
    Future,
    NoLease,
    TooLarge,
    NoSpace,
    /// Nobody is there, or nobody has time: nothing was done.
    Unreachable(Status),
    /// The connection, or the member behind it, ended meanwhile.
    Broken(Status),
    Silent,
    /// A clear no.
    Refused(Status),
    Strange(String),
}

impl From<Status> for Failed {
    fn from(status: Status) -> Failed {
        let says = |part: &str| status.message().contains(part);
        match status.code() {
            Code::OutOfRange if says("has been compacted") => Failed::Compacted,
            Code::OutOfRange if says("future revision") => Failed::Future,
            Code::NotFound if says("lease not found") => Failed::NoLease,
            Code::InvalidArgument if says("request is too large") => Failed::TooLarge,
            Code::ResourceExhausted if says("database space exceeded") => Failed::NoSpace,
            Code::ResourceExhausted if says("larger than max") => Failed::TooLarge,
            // Turned away before it was looked at.
            Code::ResourceExhausted if says("too many requests") => Failed::Unreachable(status),
            _ if could_not_connect(&status) => Failed::Unreachable(status),
            Code::InvalidArgument
            | Code::OutOfRange
            | Code::NotFound
            | Code::AlreadyExists
            | Code::ResourceExhausted
            | Code::FailedPrecondition
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::Unimplemented => Failed::Refused(status),
            Code::Ok
            | Code::Cancelled
            | Code::Unknown
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss => Failed::Broken(status),
        }
    }
}

fn could_not_connect(status: &Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.is::<ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

impl Failed {
    /// Another member may do better.
    pub(super) fn is_of_member(&self) -> bool {
        match self {
            Failed::Unreachable(_) | Failed::Broken(_) | Failed::Silent => true,
            Failed::Compacted
            | Failed::Future
            | Failed::NoLease
            | Failed::TooLarge
            | Failed::NoSpace
            | Failed::Refused(_)
            | Failed::Strange(_) => false,
        }
    }

    /// It was sent, and what came of it nobody said.
    pub(super) fn may_be_done(&self) -> bool {
        self.is_of_member() && !matches!(self, Failed::Unreachable(_))
    }

    /// Of the first request.
    pub(super) fn of_open(self, url: &str) -> StoreError {
        let is_closed = match &self {
            Failed::Unreachable(status) | Failed::Broken(status) => {
                said(status).contains("connection closed")
            }
            _ => false,
        };
        match (self.of(url), is_closed) {
            (StoreError::Unavailable { attempted, source }, true) => {
                let hint = "which may want TLS (etcds://), or a certificate (--etcd-certfile)";
                StoreError::Unavailable { attempted: format!("{attempted}, {hint}"), source }
            }
            (error, _) => error,
        }
    }

    pub(super) fn of(self, url: &str) -> StoreError {
        let attempted = format!("ask {url}");
        let (said, is_there) = match self {
            Failed::NoSpace => {
                let attempted = "commit: etcd's quota is used up (etcdctl alarm list, defrag)";
                return StoreError::Full { attempted: attempted.into(), path: url.into() };
            }
            Failed::Silent => (format!("no answer in {} s", ANSWER.as_secs()), false),
            Failed::Unreachable(status) | Failed::Broken(status) => (said(&status), false),
            Failed::Refused(status) => (said(&status), true),
            Failed::Strange(what) => (what, true),
            Failed::Compacted => ("the revision is compacted".to_owned(), true),
            Failed::Future => ("the revision is in the future".to_owned(), true),
            Failed::NoLease => ("the lease does not exist".to_owned(), true),
            Failed::TooLarge => ("the request is larger than --max-request-bytes".to_owned(), true),
        };
        match is_there {
            true => StoreError::io(attempted, std::io::Error::other(said)),
            false => StoreError::unavailable(attempted, said),
        }
    }
}

fn said(status: &Status) -> String {
    let mut causes = vec![status.message().to_owned()];
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        let text = error.to_string();
        // The same is said on several floors of the connection.
        if !causes.contains(&text) {
            causes.push(text);
        }
        cause = error.source();
    }
    causes.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_etcd_says_leaves_open_what_it_leaves_open() {
        let of = |code, text: &str| Failed::from(Status::new(code, text));
        let busy = of(Code::ResourceExhausted, "etcdserver: too many requests");
        assert!(busy.is_of_member() && !busy.may_be_done());
        assert!(matches!(busy.of("etcd://x"), StoreError::Unavailable { .. }));
        let lost = of(Code::Unavailable, "etcdserver: request timed out");
        assert!(lost.is_of_member() && lost.may_be_done());
        let full = of(Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded");
        assert!(!full.may_be_done() && matches!(full.of("etcd://x"), StoreError::Full { .. }));
        for large in [
            of(Code::InvalidArgument, "etcdserver: request is too large"),
            of(Code::ResourceExhausted, "grpc: received message larger than max (3 vs. 2)"),
        ] {
            assert!(matches!(large, Failed::TooLarge));
        }
        let many = of(Code::InvalidArgument, "etcdserver: too many operations in txn request");
        assert!(!many.is_of_member() && !many.may_be_done());
    }
}
