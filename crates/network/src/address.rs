//! Which sandbox has which address of the node's pod range.
//!
//! Addresses go round: the next one given is the one after the last one given, so that an address
//! that was just let go rests for as long as the range allows, and an old name never leads to a new
//! pod. The file is replaced as a whole; it need not survive a power cut, because no sandbox does.

use crate::{Error, Ipv4Cidr};
use std::{
    collections::BTreeMap,
    fs, io,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

const HEADER: &str = "stanchion addresses 1";
const END: &str = "end";

#[derive(Debug)]
pub(crate) struct Addresses {
    range: Ipv4Cidr,
    file: PathBuf,
    /// Where the search for the next address begins.
    next: Ipv4Addr,
    by_sandbox: BTreeMap<String, Ipv4Addr>,
    by_address: BTreeMap<Ipv4Addr, String>,
}

impl Addresses {
    /// Reads what an earlier run kept. A file that is not whole is said and left behind: the
    /// interfaces themselves know the addresses in use, see [`Addresses::adopt`].
    pub(crate) fn open(range: Ipv4Cidr, directory: &Path) -> Result<Addresses, Error> {
        let file = directory.join("addresses");
        fs::create_dir_all(directory).map_err(failed("making the directory", directory))?;
        let (first, _) = range.pods();
        let (by_sandbox, by_address) = Default::default();
        let mut addresses = Addresses { range, file, next: first, by_sandbox, by_address };
        match fs::read_to_string(&addresses.file) {
            Ok(text) if addresses.parse(&text).is_some() => {}
            Ok(_) => {
                let file = addresses.file.display();
                tracing::warn!("{file} is not whole; taking addresses from the interfaces");
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("reading", &addresses.file)(error)),
        }
        Ok(addresses)
    }

    /// The sandbox's address: the one it has, or the next free one.
    pub(crate) fn allocate(&mut self, sandbox: &str) -> Result<Ipv4Addr, Error> {
        if let Some(address) = self.by_sandbox.get(sandbox) {
            return Ok(*address);
        }
        let free = self.free()?;
        let before = self.next;
        self.next = self.after(free);
        self.insert(sandbox, free);
        if let Err(error) = self.save() {
            self.remove(sandbox);
            self.next = before;
            return Err(error);
        }
        Ok(free)
    }

    /// Lets the sandbox's address go; nothing happens where it has none.
    pub(crate) fn release(&mut self, sandbox: &str) -> Result<(), Error> {
        if self.remove(sandbox) { self.save() } else { Ok(()) }
    }

    /// Takes over an address that an interface already has.
    pub(crate) fn adopt(&mut self, sandbox: &str, address: Ipv4Addr) -> Result<(), Error> {
        let (first, last) = self.range.pods();
        let known = self.by_sandbox.contains_key(sandbox) || self.by_address.contains_key(&address);
        if known || !(first..=last).contains(&address) {
            return Ok(());
        }
        self.insert(sandbox, address);
        self.save()
    }

    /// Lets go of every sandbox that `living` does not know.
    pub(crate) fn retain(&mut self, living: impl Fn(&str) -> bool) -> Result<(), Error> {
        let gone: Vec<String> = self.by_sandbox.keys().filter(|it| !living(it)).cloned().collect();
        for sandbox in &gone {
            self.remove(sandbox);
        }
        if gone.is_empty() { Ok(()) } else { self.save() }
    }

    #[cfg(test)]
    fn has(&self, sandbox: &str) -> bool {
        self.by_sandbox.contains_key(sandbox)
    }

    fn free(&self) -> Result<Ipv4Addr, Error> {
        let mut candidate = self.next;
        // One step more than there are leases finds a free one, if there is one.
        for _ in 0..=self.by_address.len() {
            if !self.by_address.contains_key(&candidate) {
                return Ok(candidate);
            }
            candidate = self.after(candidate);
        }
        Err(Error::Exhausted { range: self.range, leased: self.by_address.len() })
    }

    fn after(&self, address: Ipv4Addr) -> Ipv4Addr {
        let (first, last) = self.range.pods();
        if address >= last { first } else { Ipv4Addr::from_bits(address.to_bits() + 1) }
    }

    fn insert(&mut self, sandbox: &str, address: Ipv4Addr) {
        self.by_sandbox.insert(sandbox.to_owned(), address);
        self.by_address.insert(address, sandbox.to_owned());
    }

    fn remove(&mut self, sandbox: &str) -> bool {
        let address = self.by_sandbox.remove(sandbox);
        address.is_some_and(|address| self.by_address.remove(&address).is_some())
    }

    fn save(&self) -> Result<(), Error> {
        let mut text = format!("{HEADER}\nnext {}\n", self.next);
        for (address, sandbox) in &self.by_address {
            text.push_str(&format!("{address} {sandbox}\n"));
        }
        text.push_str(END);
        text.push('\n');
        let new = self.file.with_extension("new");
        fs::write(&new, text).map_err(failed("writing", &new))?;
        fs::rename(&new, &self.file).map_err(failed("replacing", &self.file))
    }

    /// None, and nothing taken, unless the text is whole. Addresses outside the range, which has
    /// changed since, are left out.
    fn parse(&mut self, text: &str) -> Option<()> {
        let (first, last) = self.range.pods();
        let mut lines = text.lines();
        if lines.next()? != HEADER {
            return None;
        }
        let next: Ipv4Addr = lines.next()?.strip_prefix("next ")?.parse().ok()?;
        let mut leases = Vec::new();
        loop {
            let line = lines.next()?;
            if line == END {
                break;
            }
            let (address, sandbox) = line.split_once(' ')?;
            leases.push((address.parse::<Ipv4Addr>().ok()?, sandbox));
        }
        let within = |address: &Ipv4Addr| (first..=last).contains(address);
        self.next = Some(next).filter(within).unwrap_or(first);
        for (address, sandbox) in leases.iter().filter(|(address, _)| within(address)) {
            self.insert(sandbox, *address);
        }
        Some(())
    }
}

fn failed(attempted: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::File { attempted, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(directory: &tempfile::TempDir) -> Addresses {
        Addresses::open("10.9.0.0/29".parse().unwrap(), directory.path()).unwrap()
    }

    fn last(address: Ipv4Addr) -> u8 {
        address.octets()[3]
    }

    #[test]
    fn gives_an_address_that_was_let_go_only_after_all_others() {
        let directory = tempfile::tempdir().unwrap();
        let mut addresses = open(&directory);
        assert_eq!(last(addresses.allocate("a").unwrap()), 2);
        addresses.release("a").unwrap();
        let given: Vec<u8> =
            ["b", "c", "d", "e", "f"].map(|it| last(addresses.allocate(it).unwrap())).into();
        assert_eq!(given, [3, 4, 5, 6, 2]);
        assert_eq!(last(addresses.allocate("b").unwrap()), 3, "asked again, the same");
        let error = addresses.allocate("g").unwrap_err().to_string();
        assert_eq!(error, "10.9.0.0/29 has no free address: 5 pods hold all of it");
        addresses.release("d").unwrap();
        assert_eq!(last(addresses.allocate("g").unwrap()), 5);
    }

    #[test]
    fn keeps_addresses_and_goes_on_from_where_it_was_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let mut addresses = open(&directory);
        addresses.allocate("a").unwrap();
        addresses.allocate("b").unwrap();
        addresses.release("a").unwrap();
        let mut addresses = open(&directory);
        assert_eq!(last(addresses.allocate("b").unwrap()), 3);
        assert_eq!(last(addresses.allocate("c").unwrap()), 4);
        addresses.retain(|it| it == "c").unwrap();
        let addresses = open(&directory);
        assert!(!addresses.has("b") && addresses.has("c"));
    }

    #[test]
    fn takes_nothing_from_a_torn_file_and_adopts_what_the_interfaces_have() {
        let directory = tempfile::tempdir().unwrap();
        open(&directory).allocate("a").unwrap();
        let file = directory.path().join("addresses");
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, &text[..text.len() - 3]).unwrap();
        let mut addresses = open(&directory);
        assert!(!addresses.has("a"));
        addresses.adopt("a", Ipv4Addr::new(10, 9, 0, 2)).unwrap();
        assert_eq!(last(addresses.allocate("b").unwrap()), 3);
        assert_eq!(last(addresses.allocate("a").unwrap()), 2);
    }
}
