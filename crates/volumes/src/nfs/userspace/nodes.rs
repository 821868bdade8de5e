//! Numbers for the files that the kernel knows: the server has handles, the kernel wants numbers.

use nfs3_client::nfs3_types::nfs3::nfs_fh3;
use std::collections::HashMap;

/// The directory that is mounted.
pub(super) const ROOT: u64 = 1;

/// A file that was removed while open, under the name that it has until it is closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hidden {
    pub(super) directory: nfs_fh3,
    pub(super) name: Vec<u8>,
}

struct Node {
    handle: Vec<u8>,
    /// How often the kernel was told of it.
    known: u64,
    open: u64,
    hidden: Option<Hidden>,
}

pub(super) struct Nodes {
    nodes: HashMap<u64, Node>,
    numbers: HashMap<Vec<u8>, u64>,
    next: u64,
    /// Of all files together.
    open: u64,
}

impl Nodes {
    pub(super) fn new(root: &nfs_fh3) -> Nodes {
        let (by_number, numbers) = (HashMap::new(), HashMap::new());
        let mut nodes = Nodes { nodes: by_number, numbers, next: ROOT, open: 0 };
        nodes.tell(root);
        nodes
    }

    /// The number of a file, new or known, that the kernel is about to be told.
    pub(super) fn tell(&mut self, handle: &nfs_fh3) -> u64 {
        let bytes = handle.data.to_vec();
        let next = self.next;
        let number = *self.numbers.entry(bytes.clone()).or_insert(next);
        if number == next {
            self.next += 1;
        }
        let fresh = || Node { handle: bytes, known: 0, open: 0, hidden: None };
        self.nodes.entry(number).or_insert_with(fresh).known += 1;
        number
    }

    /// The kernel forgot as many tellings.
    pub(super) fn forget(&mut self, number: u64, tellings: u64) {
        let Some(node) = self.nodes.get_mut(&number).filter(|_| number != ROOT) else { return };
        node.known = node.known.saturating_sub(tellings);
        if node.known == 0
            && let Some(node) = self.nodes.remove(&number)
        {
            self.numbers.remove(&node.handle);
        }
    }

    pub(super) fn handle(&self, number: u64) -> Option<nfs_fh3> {
        self.nodes.get(&number).map(|it| nfs_fh3 { data: it.handle.clone().into() })
    }

    pub(super) fn opened(&mut self, number: u64) {
        if let Some(node) = self.nodes.get_mut(&number) {
            node.open += 1;
            self.open += 1;
        }
    }

    pub(super) fn has_open(&self) -> bool {
        self.open > 0
    }

    /// What is to be removed, now that nobody has it open.
    pub(super) fn closed(&mut self, number: u64) -> Option<Hidden> {
        let node = self.nodes.get_mut(&number)?;
        if node.open > 0 {
            node.open -= 1;
            self.open -= 1;
        }
        if node.open == 0 { node.hidden.take() } else { None }
    }

    /// Whether somebody has this file open that has not been hidden yet.
    pub(super) fn open_number(&self, handle: &nfs_fh3) -> Option<u64> {
        let number = *self.numbers.get(&handle.data.to_vec())?;
        self.nodes.get(&number).filter(|it| it.open > 0 && it.hidden.is_none()).map(|_| number)
    }

    pub(super) fn is_hidden(&self, handle: &nfs_fh3) -> bool {
        let number = self.numbers.get(&handle.data.to_vec());
        let node = number.and_then(|it| self.nodes.get(it));
        node.is_some_and(|it| it.hidden.is_some())
    }

    /// It has its name back.
    pub(super) fn show(&mut self, number: u64) {
        if let Some(node) = self.nodes.get_mut(&number) {
            node.hidden = None;
        }
    }

    pub(super) fn hide(&mut self, number: u64, hidden: Hidden) {
        if let Some(node) = self.nodes.get_mut(&number) {
            node.hidden = Some(hidden);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handle(byte: u8) -> nfs_fh3 {
        nfs_fh3 { data: vec![byte].into() }
    }

    #[test]
    fn a_file_has_one_number_until_the_kernel_forgets_it() {
        let mut nodes = Nodes::new(&handle(0));
        let file = nodes.tell(&handle(1));
        assert_eq!((nodes.tell(&handle(1)), nodes.tell(&handle(0))), (file, ROOT));
        nodes.forget(file, 1);
        assert!(nodes.handle(file).is_some());
        nodes.forget(file, 1);
        assert!(nodes.handle(file).is_none());
        assert_ne!(nodes.tell(&handle(1)), file, "numbers are not used again");
        nodes.forget(ROOT, 9);
        assert!(nodes.handle(ROOT).is_some());
    }

    #[test]
    fn what_was_removed_while_open_goes_with_the_last_close() {
        let mut nodes = Nodes::new(&handle(0));
        let file = nodes.tell(&handle(1));
        assert_eq!(nodes.open_number(&handle(1)), None);
        nodes.opened(file);
        nodes.opened(file);
        assert_eq!(nodes.open_number(&handle(1)), Some(file));
        let hidden = Hidden { directory: handle(0), name: b".nfs1".to_vec() };
        nodes.hide(file, hidden.clone());
        assert_eq!(nodes.open_number(&handle(1)), None);
        assert!(nodes.is_hidden(&handle(1)));
        assert_eq!(nodes.closed(file), None);
        assert!(nodes.has_open());
        assert_eq!(nodes.closed(file), Some(hidden));
        assert!(!nodes.has_open());
    }
}
