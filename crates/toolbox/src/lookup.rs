//! lookup: asks DNS and prints records as zone files write them.

use crate::{
    Failure, Outcome,
    dns::{Absent, Resolver, Type, reverse},
};
use std::net::{IpAddr, SocketAddr};

pub(crate) fn lookup(words: &[String]) -> Outcome {
    let mut resolver = Resolver::system();
    let (mut name, mut kind) = (None, None);
    for word in words {
        if let Some(server) = word.strip_prefix('@') {
            resolver.servers = vec![server_address(server).ok_or(Failure::Usage)?];
        } else if name.is_none() {
            name = Some(word.as_str());
        } else if let (Some(parsed), None) = (Type::parse(word), kind) {
            kind = Some(parsed);
        } else {
            return Err(Failure::Usage);
        }
    }
    let name = name.ok_or(Failure::Usage)?;
    // An address alone is asked for its name.
    let (name, kinds) = match (name.parse::<IpAddr>(), kind) {
        (Ok(address), None | Some(Type::Ptr)) => (reverse(address), vec![Type::Ptr]),
        (Err(_), Some(kind)) => (name.to_owned(), vec![kind]),
        (Err(_), None) => (name.to_owned(), vec![Type::A, Type::Aaaa]),
        (Ok(_), Some(_)) => return Err(Failure::Usage),
    };
    let mut absent = None;
    let mut found = false;
    for kind in kinds {
        match resolver.lookup(&name, kind) {
            Ok(records) => {
                found = true;
                for record in records {
                    let kind = record.kind.name();
                    println!("{} {} IN {kind} {}", record.name, record.ttl, record.data);
                }
            }
            // A name with addresses of one family has no records of the other.
            Err(Absent::NoRecords) if found => {}
            Err(why) => absent = absent.or(Some(why)),
        }
    }
    match absent {
        Some(why) if !found => Err(Failure::Because(format!("{name}: {why}"))),
        _ => Ok(()),
    }
}

/// `10.96.0.10`, `10.96.0.10:5353` or `[::1]:53`.
fn server_address(text: &str) -> Option<SocketAddr> {
    text.parse().ok().or_else(|| Some(SocketAddr::new(text.parse().ok()?, 53)))
}
