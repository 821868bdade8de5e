//! A server of NFS version 3 in memory, on a port of the loopback, that loses answers, forgets and stutters as told:
//! what no real server does on demand.

use nfs3_client::nfs3_types::{
    mount::{self, fhandle3, mountres3, mountres3_ok},
    nfs3::{self, *},
    rpc::{
        accept_stat_data, accepted_reply, fragment_header, msg_body, opaque_auth, reply_body,
        rpc_msg,
    },
    xdr_codec::{List, Opaque, Pack, Unpack},
};
use std::{
    collections::{BTreeMap, HashMap},
    io::{Cursor, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard},
};

pub(super) const ROOT: u64 = 1;

#[derive(Clone, Default)]
pub(super) struct Node {
    pub(super) data: Vec<u8>,
    pub(super) mode: u32,
    names: Option<BTreeMap<Vec<u8>, u64>>,
    target: Option<Vec<u8>>,
    mark: Option<createverf3>,
}

/// What the server has, and what it is about to do wrong.
#[derive(Default)]
pub(super) struct State {
    pub(super) nodes: HashMap<u64, Node>,
    next: u64,
    /// So many answers are lost from now on, after the call was carried out.
    pub(super) lose: u32,
    /// The procedure whose answers get lost.
    pub(super) lose_of: u32,
    /// Writes stay in memory until they are committed.
    pub(super) is_lazy: bool,
    /// So many times it restarts before the next commit, and loses what was not committed.
    pub(super) restarts: u8,
    verifier: u8,
    memory: HashMap<u64, Node>,
    /// Bytes in one answer at most.
    pub(super) short: Option<usize>,
    /// Entries of a directory in one answer.
    pub(super) page: usize,
    pub(super) knows_marks: bool,
    /// Names of directories come without attributes.
    pub(super) is_terse: bool,
    pub(super) calls: Vec<u32>,
}

impl State {
    fn add(&mut self, directory: u64, name: &[u8], node: Node) -> u64 {
        self.next += 1;
        let new = self.next;
        self.nodes.insert(new, node);
        self.names(directory).insert(name.to_vec(), new);
        new
    }

    fn names(&mut self, directory: u64) -> &mut BTreeMap<Vec<u8>, u64> {
        let node = self.nodes.get_mut(&directory).expect("a directory");
        node.names.as_mut().expect("names")
    }

    pub(super) fn named(&mut self, name: &[u8]) -> Option<u64> {
        self.names(ROOT).get(name).copied()
    }

    pub(super) fn all_names(&mut self) -> Vec<String> {
        let names = self.names(ROOT).keys();
        names.map(|it| String::from_utf8_lossy(it).into_owned()).collect()
    }

    fn take(&mut self, place: &diropargs3<'_>) -> Option<u64> {
        let gone = self.names(number(&place.dir)).remove(place.name.0.as_ref())?;
        let all = self.nodes.values().filter_map(|it| it.names.as_ref());
        if !all.into_iter().any(|it| it.values().any(|it| *it == gone)) {
            self.nodes.remove(&gone);
        }
        Some(gone)
    }

    fn attributes(&self, of: u64) -> Option<fattr3> {
        let node = self.nodes.get(&of)?;
        let type_ = match (&node.names, &node.target) {
            (Some(_), _) => ftype3::NF3DIR,
            (None, Some(_)) => ftype3::NF3LNK,
            (None, None) => ftype3::NF3REG,
        };
        Some(fattr3 {
            type_,
            mode: node.mode,
            nlink: 1,
            uid: 0,
            gid: 0,
            size: node.data.len() as u64,
            used: 0,
            rdev: specdata3::default(),
            fsid: 1,
            fileid: of,
            atime: nfstime3::default(),
            mtime: nfstime3::default(),
            ctime: nfstime3::default(),
        })
    }

    fn known(&self, of: u64) -> post_op_attr {
        self.attributes(of).map_or(Nfs3Option::None, Nfs3Option::Some)
    }

    fn of(&self, place: &diropargs3<'_>) -> Option<u64> {
        let directory = self.nodes.get(&number(&place.dir))?.names.as_ref()?;
        directory.get(place.name.0.as_ref()).copied()
    }
}

pub(super) struct FakeServer {
    pub(super) port: u16,
    state: Arc<Mutex<State>>,
}

impl FakeServer {
    pub(super) fn start() -> FakeServer {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let root = Node { names: Some(BTreeMap::new()), mode: 0o755, ..Node::default() };
        let nodes = HashMap::from([(ROOT, root)]);
        let state = State { nodes, next: ROOT, page: 3, knows_marks: true, ..State::default() };
        let state = Arc::new(Mutex::new(state));
        let shared = state.clone();
        // Ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = shared.clone();
                std::thread::spawn(move || serve(stream, &state));
            }
        });
        FakeServer { port, state }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("the state")
    }
}

fn serve(mut stream: TcpStream, state: &Mutex<State>) {
    while let Some((message, mut rest)) = receive(&mut stream) {
        let msg_body::CALL(call) = message.body else { return };
        let mut body = Vec::new();
        {
            let mut state = state.lock().expect("the state");
            match call.prog {
                mount::PROGRAM if call.proc == 1 => {
                    let fhandle = fhandle3(Opaque::owned(ROOT.to_be_bytes().to_vec()));
                    write(
                        &mut body,
                        &mountres3::Ok(mountres3_ok { fhandle, auth_flavors: vec![1] }),
                    );
                }
                nfs3::PROGRAM => {
                    state.calls.push(call.proc);
                    answer(&mut state, call.proc, &mut rest, &mut body);
                    if state.lose > 0 && state.lose_of == call.proc {
                        state.lose -= 1;
                        return;
                    }
                }
                _ => {}
            }
        }
        let reply =
            accepted_reply { verf: opaque_auth::default(), reply_data: accept_stat_data::SUCCESS };
        let body_of_reply = msg_body::REPLY(reply_body::MSG_ACCEPTED(reply));
        let mut out = Vec::new();
        write(&mut out, &rpc_msg { xid: message.xid, body: body_of_reply });
        out.extend(body);
        let length = u32::try_from(out.len()).expect("a short answer");
        let mut all = fragment_header::new(length, true).into_xdr_buf().to_vec();
        all.extend(out);
        if stream.write_all(&all).is_err() {
            return;
        }
    }
}

fn receive(stream: &mut TcpStream) -> Option<(rpc_msg<'static, 'static>, Cursor<Vec<u8>>)> {
    let mut head = [0; 4];
    stream.read_exact(&mut head).ok()?;
    let mut bytes = vec![0; fragment_header::from(head).fragment_length() as usize];
    stream.read_exact(&mut bytes).ok()?;
    let mut cursor = Cursor::new(bytes);
    let (message, _) = rpc_msg::unpack(&mut cursor).ok()?;
    Some((message, cursor))
}

fn read<T: Unpack>(from: &mut Cursor<Vec<u8>>) -> T {
    T::unpack(from).expect("arguments").0
}

fn write(to: &mut Vec<u8>, it: &impl Pack) {
    it.pack(to).expect("an answer");
}

fn number(handle: &nfs_fh3) -> u64 {
    let bytes: [u8; 8] = handle.data.as_ref().try_into().expect("a handle of ours");
    u64::from_be_bytes(bytes)
}

fn handle(of: u64) -> nfs_fh3 {
    nfs_fh3 { data: Opaque::owned(of.to_be_bytes().to_vec()) }
}

fn mode(of: &sattr3) -> u32 {
    match of.mode {
        Nfs3Option::Some(mode) => mode,
        Nfs3Option::None => 0,
    }
}

fn refuse(body: &mut Vec<u8>, status: nfsstat3, filling: usize) {
    write(body, &status);
    // No attributes before, none after: a word each.
    body.extend(vec![0; 4 * filling]);
}

/// What became of a call that makes something.
fn made(state: &State, body: &mut Vec<u8>, made: Result<u64, nfsstat3>) {
    match made {
        Ok(new) => {
            let (obj, dir_wcc) = (Nfs3Option::Some(handle(new)), wcc_data::default());
            write(body, &nfsstat3::NFS3_OK);
            write(body, &CREATE3resok { obj, obj_attributes: state.known(new), dir_wcc });
        }
        Err(status) => refuse(body, status, 2),
    }
}

fn answer(state: &mut State, procedure: u32, from: &mut Cursor<Vec<u8>>, body: &mut Vec<u8>) {
    let (ok, wcc_data) = (nfsstat3::NFS3_OK, wcc_data::default());
    match procedure {
        1 => match state.attributes(number(&read::<GETATTR3args>(from).object)) {
            Some(obj_attributes) => {
                write(body, &ok);
                write(body, &GETATTR3resok { obj_attributes });
            }
            None => write(body, &nfsstat3::NFS3ERR_STALE),
        },
        2 => {
            let arguments: SETATTR3args = read(from);
            let Some(node) = state.nodes.get_mut(&number(&arguments.object)) else {
                return refuse(body, nfsstat3::NFS3ERR_STALE, 2);
            };
            node.mark = None;
            if let Nfs3Option::Some(mode) = arguments.new_attributes.mode {
                node.mode = mode;
            }
            if let Nfs3Option::Some(size) = arguments.new_attributes.size {
                node.data.resize(usize::try_from(size).expect("a small file"), 0);
            }
            write(body, &ok);
            write(body, &SETATTR3resok { obj_wcc: wcc_data });
        }
        3 => match state.of(&read::<LOOKUP3args<'_>>(from).what) {
            Some(found) => {
                let (object, obj_attributes) = (handle(found), state.known(found));
                write(body, &ok);
                let dir_attributes = Nfs3Option::None;
                write(body, &LOOKUP3resok { object, obj_attributes, dir_attributes });
            }
            None => refuse(body, nfsstat3::NFS3ERR_NOENT, 1),
        },
        5 => {
            let node = state.nodes.get(&number(&read::<READLINK3args>(from).symlink));
            let target = node.and_then(|it| it.target.clone()).expect("a link");
            write(body, &ok);
            let data = nfspath3(Opaque::owned(target));
            write(body, &READLINK3resok { symlink_attributes: Nfs3Option::None, data });
        }
        6 => {
            let arguments: READ3args = read(from);
            let Some(node) = state.nodes.get(&number(&arguments.file)) else {
                return refuse(body, nfsstat3::NFS3ERR_STALE, 1);
            };
            let begin = usize::try_from(arguments.offset).expect("small").min(node.data.len());
            let most = state.short.unwrap_or(usize::MAX).min(arguments.count as usize);
            let data = node.data[begin..].iter().copied().take(most).collect::<Vec<u8>>();
            let eof = begin + data.len() == node.data.len();
            let count = u32::try_from(data.len()).expect("short");
            let file_attributes = Nfs3Option::None;
            write(body, &ok);
            write(body, &READ3resok { file_attributes, count, eof, data: data.into() });
        }
        7 => {
            let arguments: WRITE3args<'_> = read(from);
            let (file, is_lazy) = (number(&arguments.file), state.is_lazy);
            let most = state.short.unwrap_or(usize::MAX).min(arguments.data.len());
            let Some(node) = state.nodes.get_mut(&file) else {
                return refuse(body, nfsstat3::NFS3ERR_STALE, 2);
            };
            if is_lazy {
                let before = node.clone();
                state.memory.entry(file).or_insert(before);
            }
            let begin = usize::try_from(arguments.offset).expect("small");
            let end = begin + most;
            node.data.resize(node.data.len().max(end), 0);
            node.data[begin..end].copy_from_slice(&arguments.data[..most]);
            let committed = if is_lazy { stable_how::UNSTABLE } else { stable_how::FILE_SYNC };
            let (count, verf) =
                (u32::try_from(most).expect("short"), writeverf3([state.verifier; 8]));
            write(body, &ok);
            write(body, &WRITE3resok { file_wcc: wcc_data, count, committed, verf });
        }
        8 => {
            let arguments: CREATE3args<'_> = read(from);
            let name = arguments.where_.name.0.as_ref().to_vec();
            let directory = number(&arguments.where_.dir);
            let there = state.of(&arguments.where_);
            let done = match (arguments.how, there) {
                (createhow3::EXCLUSIVE(_), _) if !state.knows_marks => {
                    Err(nfsstat3::NFS3ERR_NOTSUPP)
                }
                (createhow3::EXCLUSIVE(mark), Some(there)) => {
                    let is_own = state.nodes.get(&there).is_some_and(|it| it.mark == Some(mark));
                    if is_own { Ok(there) } else { Err(nfsstat3::NFS3ERR_EXIST) }
                }
                (createhow3::EXCLUSIVE(mark), None) => {
                    Ok(state.add(directory, &name, Node { mark: Some(mark), ..Node::default() }))
                }
                (createhow3::GUARDED(_), Some(_)) => Err(nfsstat3::NFS3ERR_EXIST),
                (createhow3::UNCHECKED(new), Some(there)) => {
                    if let (Nfs3Option::Some(0), Some(node)) =
                        (new.size, state.nodes.get_mut(&there))
                    {
                        node.data.clear();
                    }
                    Ok(there)
                }
                (createhow3::UNCHECKED(new) | createhow3::GUARDED(new), None) => {
                    Ok(state.add(directory, &name, Node { mode: mode(&new), ..Node::default() }))
                }
            };
            made(state, body, done);
        }
        9 | 10 => {
            let (place, node) = if procedure == 9 {
                let it: MKDIR3args<'_> = read(from);
                let (names, mode) = (Some(BTreeMap::new()), mode(&it.attributes));
                (it.where_, Node { names, mode, ..Node::default() })
            } else {
                let it: SYMLINK3args<'_> = read(from);
                let target = Some(it.symlink.symlink_data.0.as_ref().to_vec());
                (it.where_, Node { target, ..Node::default() })
            };
            let done = match state.of(&place) {
                Some(_) => Err(nfsstat3::NFS3ERR_EXIST),
                None => Ok(state.add(number(&place.dir), place.name.0.as_ref(), node)),
            };
            made(state, body, done);
        }
        12 | 13 => {
            let place = read::<REMOVE3args<'_>>(from).object;
            match state.take(&place) {
                Some(_) => {
                    write(body, &ok);
                    write(body, &REMOVE3resok { dir_wcc: wcc_data });
                }
                None => refuse(body, nfsstat3::NFS3ERR_NOENT, 2),
            }
        }
        14 => {
            let arguments: RENAME3args<'_, '_> = read(from);
            let Some(moved) = state.of(&arguments.from) else {
                return refuse(body, nfsstat3::NFS3ERR_NOENT, 4);
            };
            state.names(number(&arguments.from.dir)).remove(arguments.from.name.0.as_ref());
            let _replaced = state.take(&arguments.to);
            let name = arguments.to.name.0.as_ref().to_vec();
            state.names(number(&arguments.to.dir)).insert(name, moved);
            write(body, &ok);
            let todir_wcc = nfs3::wcc_data::default();
            write(body, &RENAME3resok { fromdir_wcc: wcc_data, todir_wcc });
        }
        15 => {
            let arguments: LINK3args<'_> = read(from);
            if state.of(&arguments.link).is_some() {
                return refuse(body, nfsstat3::NFS3ERR_EXIST, 3);
            }
            let (file, name) = (number(&arguments.file), arguments.link.name.0.as_ref().to_vec());
            state.names(number(&arguments.link.dir)).insert(name, file);
            write(body, &ok);
            let file_attributes = state.known(file);
            write(body, &LINK3resok { file_attributes, linkdir_wcc: wcc_data });
        }
        17 => {
            let arguments: READDIRPLUS3args = read(from);
            let (is_terse, page) = (state.is_terse, state.page);
            let all = state.names(number(&arguments.dir)).clone();
            let begin = usize::try_from(arguments.cookie).expect("a cookie of ours");
            let entry = |(at, (name, of)): (usize, (&Vec<u8>, &u64))| entryplus3 {
                fileid: *of,
                name: name.clone().into(),
                cookie: at as u64 + 1,
                name_attributes: if is_terse { Nfs3Option::None } else { state.known(*of) },
                name_handle: Nfs3Option::None,
            };
            let some = all.iter().enumerate().skip(begin).take(page).map(entry).collect();
            let reply = dirlistplus3 { entries: List(some), eof: begin + page >= all.len() };
            let dir_attributes = Nfs3Option::None;
            write(body, &ok);
            let cookieverf = cookieverf3::default();
            write(body, &READDIRPLUS3resok { dir_attributes, cookieverf, reply });
        }
        21 => {
            let file = number(&read::<COMMIT3args>(from).file);
            if state.restarts > 0 {
                state.restarts -= 1;
                state.verifier += 1;
                let before = std::mem::take(&mut state.memory);
                state.nodes.extend(before);
            }
            state.memory.remove(&file);
            let verf = writeverf3([state.verifier; 8]);
            write(body, &ok);
            write(body, &COMMIT3resok { file_wcc: wcc_data, verf });
        }
        _ => write(body, &nfsstat3::NFS3ERR_NOTSUPP),
    }
}
