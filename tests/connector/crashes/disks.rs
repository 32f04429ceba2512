//! A disk that forgets: all that may be in a folder after a power cut.
//!
//! POSIX promises of a file what was written before its last fsync, and of names what was done before the last fsync of their
//! folder. Of the rest each part may be there or not, in every combination.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The store's files by name, and what is in them.
pub type Folder = BTreeMap<String, Vec<u8>>;

/// One call of the store.
#[derive(Clone, Debug)]
pub enum Call {
    Create(String, usize),
    OpenFolder(usize),
    Write(usize, Vec<u8>),
    Sync(usize),
    Rename(String, String),
    Unlink(String),
    Close(usize),
}

impl Call {
    /// A line of what faults.c writes down.
    pub fn parse(line: &str, folder: &Path) -> Self {
        let mut words = line.split(' ');
        let mut word = || words.next().expect("five words");
        let (what, one, two, number, data) = (word(), word(), word(), word(), word());
        let fd = number.parse().expect("a number");
        let name = |path: &str| Path::new(path).file_name().expect("a name").to_str().expect("UTF-8").to_owned();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("hex"), 16).expect("hex");
        match what {
            "open" if Path::new(one) == folder => Self::OpenFolder(fd),
            "open" => Self::Create(name(one), fd),
            "write" => Self::Write(fd, data.as_bytes().chunks(2).map(byte).collect()),
            "sync" => Self::Sync(fd),
            "rename" => Self::Rename(name(one), name(two)),
            "unlink" => Self::Unlink(name(one)),
            "close" => Self::Close(fd),
            _ => panic!("an unknown call: {line}"),
        }
    }
}

/// What has been done to names since the last fsync of the folder.
#[derive(Clone, Debug)]
enum Renaming {
    Link(String, usize),
    Rename(String, String, usize),
    Unlink(String),
}

#[derive(Clone, Default)]
struct File {
    content: Vec<u8>,
    /// So many bytes of it are safe.
    synced: usize,
}

/// A folder, its files, and what of them is safe.
#[derive(Default)]
pub struct Disk {
    files: Vec<File>,
    open: BTreeMap<usize, Option<usize>>,
    /// As everybody sees them.
    names: BTreeMap<String, usize>,
    /// As they are for sure.
    safe: BTreeMap<String, usize>,
    since: Vec<Renaming>,
}

impl Disk {
    pub fn apply(&mut self, call: &Call) {
        match call {
            Call::OpenFolder(fd) => drop(self.open.insert(*fd, None)),
            Call::Create(name, fd) => {
                let file = self.files.len();
                self.files.push(File::default());
                self.open.insert(*fd, Some(file));
                self.names.insert(name.clone(), file);
                self.since.push(Renaming::Link(name.clone(), file));
            }
            Call::Write(fd, data) => {
                let file = self.open[fd].expect("a file");
                self.files[file].content.extend_from_slice(data);
            }
            Call::Sync(fd) => match self.open[fd] {
                Some(file) => self.files[file].synced = self.files[file].content.len(),
                None => {
                    self.safe = self.names.clone();
                    self.since.clear();
                }
            },
            Call::Rename(from, to) => {
                let file = self.names.remove(from).expect("it is there");
                self.names.insert(to.clone(), file);
                self.since.push(Renaming::Rename(from.clone(), to.clone(), file));
            }
            Call::Unlink(name) => {
                self.names.remove(name);
                self.since.push(Renaming::Unlink(name.clone()));
            }
            Call::Close(fd) => drop(self.open.remove(fd)),
        }
    }

    /// As it is while the power is on.
    pub fn content(&self) -> Folder {
        self.names.iter().map(|(name, &file)| (name.clone(), self.files[file].content.clone())).collect()
    }

    /// All that may be there if it fails now.
    pub fn after_a_cut(&self) -> BTreeSet<Folder> {
        let subsets = 1_u32 << self.since.len();
        let mut folders = BTreeSet::new();
        for subset in 0..subsets {
            let done = self.since.iter().enumerate().filter(|(at, _)| subset >> at & 1 == 1).map(|(_, it)| it);
            let mut names = self.safe.clone();
            done.for_each(|renaming| renaming.apply(&mut names));
            // Every way to fill one of the files, with every way to fill the others.
            let mut filled = vec![Folder::new()];
            for (name, &file) in &names {
                let contents = self.files[file].after_a_cut();
                let with = |folder: &Folder, content: &Vec<u8>| {
                    folder.clone().into_iter().chain([(name.clone(), content.clone())]).collect()
                };
                filled = filled.iter().flat_map(|folder| contents.iter().map(move |it| with(folder, it))).collect();
            }
            folders.extend(filled);
        }
        folders
    }
}

impl Renaming {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Link(name, file) => drop(names.insert(name.clone(), *file)),
            Self::Rename(from, to, file) => {
                if names.get(from) == Some(file) {
                    names.remove(from);
                }
                names.insert(to.clone(), *file);
            }
            Self::Unlink(name) => drop(names.remove(name)),
        }
    }
}

impl File {
    /// Nothing of what is not safe, one byte, half, all but one, all; and as many zeros, as where blocks were allocated
    /// and not written.
    fn after_a_cut(&self) -> BTreeSet<Vec<u8>> {
        let (safe, rest) = self.content.split_at(self.synced);
        let lengths = [0, 1, rest.len() / 2, rest.len().saturating_sub(1), rest.len()];
        let partly = |length: usize| [safe, &rest[..length.min(rest.len())]].concat();
        let zeros = [safe, &vec![0; rest.len()]].concat();
        lengths.into_iter().map(partly).chain([zeros]).collect()
    }
}

#[test]
fn what_was_not_synced_may_be_there_or_not() {
    let mut disk = Disk::default();
    let calls = [
        Call::Create("new".into(), 3),
        Call::Write(3, b"12".to_vec()),
        Call::Rename("new".into(), "old".into()),
        Call::OpenFolder(4),
    ];
    calls.iter().for_each(|call| disk.apply(call));
    let with = |name: &str, content: &[u8]| Folder::from([(name.to_owned(), content.to_vec())]);
    let found = disk.after_a_cut();
    let contents: [&[u8]; 4] = [b"", b"1", b"12", b"\0\0"];
    let expected = ["new", "old"].into_iter().flat_map(|name| contents.map(|content| with(name, content)));
    assert_eq!(found, expected.chain([Folder::new()]).collect());
    disk.apply(&Call::Sync(3));
    assert_eq!(disk.after_a_cut(), BTreeSet::from([with("new", b"12"), with("old", b"12"), Folder::new()]));
    disk.apply(&Call::Sync(4));
    assert_eq!(disk.after_a_cut(), BTreeSet::from([with("old", b"12")]));
}
