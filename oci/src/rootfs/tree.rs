//! A file system tree in memory, as any image writer takes it; does no I/O.

use std::collections::BTreeMap;

use thiserror::Error;

/// The longest name of one directory entry, in bytes.
pub const MAX_NAME_BYTES: usize = 255;
/// The longest target of a symbolic link, in bytes (PATH_MAX without its NUL).
pub const MAX_TARGET_BYTES: usize = 4095;

/// Names a node of one [`Tree`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(usize);

impl NodeId {
    /// The node's place in the order of creation; the root is 0.
    #[must_use]
    pub fn index(self) -> usize {
        self.0
    }
}

/// Who owns a file and what they may do with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// Permission, set-id and sticky bits (at most 0o7777); the type comes from the content.
    pub mode: u16,
    /// Owning user.
    pub uid: u32,
    /// Owning group.
    pub gid: u32,
    /// Time of the last change, in seconds since 1970.
    pub mtime_s: u64,
}

impl Meta {
    /// Owned by root, changed at the start of 1970.
    #[must_use]
    pub fn root(mode: u16) -> Self {
        Self {
            mode,
            uid: 0,
            gid: 0,
            mtime_s: 0,
        }
    }
}

/// Number of a device file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceNumber {
    /// Major number, 12 bits on Linux.
    pub major: u32,
    /// Minor number, 20 bits on Linux.
    pub minor: u32,
}

/// What a node is and holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A directory; it is filled by adding nodes below it.
    Directory,
    /// A regular file with its bytes.
    File(Vec<u8>),
    /// A symbolic link with its target.
    Symlink(Vec<u8>),
    /// A character device.
    CharDevice(DeviceNumber),
    /// A block device.
    BlockDevice(DeviceNumber),
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// One file of the tree.
#[derive(Debug, Clone)]
pub struct Node {
    /// Owner, permissions, time.
    pub meta: Meta,
    /// What it is.
    pub content: Content,
    /// The entries of a directory by name, in the order of the names' bytes.
    pub children: BTreeMap<Vec<u8>, NodeId>,
    /// How many names it has; for a directory those of its parent only.
    pub links: u32,
}

/// Why something cannot be added to a tree.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum TreeError {
    /// A component is empty where it may not be, `.`, `..`, too long, or has a NUL.
    #[error("cannot add {path:?}: {name:?} is no file name (1 to 255 bytes, not . or .., no NUL)")]
    BadName {
        /// The path that was to be added.
        path: String,
        /// The component that is wrong.
        name: String,
    },
    /// A parent does not exist or is no directory.
    #[error("cannot add {path:?}: {parent:?} is missing or no directory; add it first")]
    NoParent {
        /// The path that was to be added.
        path: String,
        /// The parent in question.
        parent: String,
    },
    /// The name is taken.
    #[error("cannot add {path:?}: it is there already")]
    Exists {
        /// The path that was to be added.
        path: String,
    },
    /// A symbolic link's target is empty, too long, or has a NUL.
    #[error("cannot add link {path:?}: its target has {len} bytes or a NUL (1 to 4095, no NUL)")]
    BadTarget {
        /// The path that was to be added.
        path: String,
        /// Length of the target in bytes.
        len: usize,
    },
    /// A hard link to a directory, or to nothing.
    #[error("cannot link {path:?} to {target:?}: that is missing or a directory")]
    BadLink {
        /// The path that was to be added.
        path: String,
        /// What it should have been linked to.
        target: String,
    },
}

/// A tree of files, the root directory first.
#[derive(Debug, Clone)]
pub struct Tree {
    nodes: Vec<Node>,
}

impl Tree {
    /// A tree with nothing but its root directory.
    #[must_use]
    pub fn new(root: Meta) -> Self {
        let links = 1;
        let children = BTreeMap::new();
        Self {
            nodes: vec![Node {
                meta: root,
                content: Content::Directory,
                children,
                links,
            }],
        }
    }

    /// The root directory.
    #[must_use]
    pub fn root(&self) -> NodeId {
        NodeId(0)
    }

    /// All nodes in the order of creation.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The node behind an id of this tree.
    #[must_use]
    pub fn get(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(id.0)
    }

    /// Adds a file below directories that exist. A leading slash means nothing.
    ///
    /// # Errors
    /// A bad name or target, a missing parent, a name that is taken.
    pub fn add(&mut self, path: &str, meta: Meta, content: Content) -> Result<NodeId, TreeError> {
        if let Content::Symlink(target) = &content
            && (target.is_empty() || target.len() > MAX_TARGET_BYTES || target.contains(&0))
        {
            return Err(TreeError::BadTarget {
                path: path.to_owned(),
                len: target.len(),
            });
        }
        let (parent, name) = self.place(path)?;
        let id = NodeId(self.nodes.len());
        self.nodes.push(Node {
            meta,
            content,
            children: BTreeMap::new(),
            links: 1,
        });
        self.attach(parent, name, id);
        Ok(id)
    }

    /// Gives the file `target` a further name.
    ///
    /// # Errors
    /// As [`Self::add`], and a target that is a directory or missing.
    pub fn link(&mut self, path: &str, target: &str) -> Result<(), TreeError> {
        let (parent, name) = self.place(path)?;
        let refused = || TreeError::BadLink {
            path: path.to_owned(),
            target: target.to_owned(),
        };
        let id = self.find(target).ok_or_else(refused)?;
        match self.nodes.get_mut(id.0) {
            Some(node) if node.content != Content::Directory => node.links += 1,
            _ => return Err(refused()),
        }
        self.attach(parent, name, id);
        Ok(())
    }

    /// The node at `path`; symbolic links are not followed.
    #[must_use]
    pub fn find(&self, path: &str) -> Option<NodeId> {
        let mut at = self.root();
        for name in path.split('/').filter(|name| !name.is_empty()) {
            at = *self.nodes.get(at.0)?.children.get(name.as_bytes())?;
        }
        Some(at)
    }

    /// Checks that `path` can be added and splits it into its parent and its name.
    fn place(&self, path: &str) -> Result<(NodeId, Vec<u8>), TreeError> {
        let clean = path.trim_start_matches('/');
        let (above, name) = clean.rsplit_once('/').unwrap_or(("", clean));
        if matches!(name, "" | "." | "..") || name.len() > MAX_NAME_BYTES || name.contains('\0') {
            return Err(TreeError::BadName {
                path: path.to_owned(),
                name: name.to_owned(),
            });
        }
        let parent = self.find(above).filter(|id| {
            self.get(*id)
                .is_some_and(|node| node.content == Content::Directory)
        });
        let Some(parent) = parent else {
            return Err(TreeError::NoParent {
                path: path.to_owned(),
                parent: above.to_owned(),
            });
        };
        if self
            .get(parent)
            .is_some_and(|node| node.children.contains_key(name.as_bytes()))
        {
            return Err(TreeError::Exists {
                path: path.to_owned(),
            });
        }
        Ok((parent, name.as_bytes().to_vec()))
    }

    fn attach(&mut self, parent: NodeId, name: Vec<u8>, child: NodeId) {
        if let Some(node) = self.nodes.get_mut(parent.0) {
            node.children.insert(name, child);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Content, Meta, Tree, TreeError};

    fn tree() -> Tree {
        let mut tree = Tree::new(Meta::root(0o755));
        tree.add("/a", Meta::root(0o755), Content::Directory)
            .expect("a directory");
        tree.add("a/f", Meta::root(0o644), Content::File(b"x".to_vec()))
            .expect("a file");
        tree
    }

    #[test]
    fn bad_additions_are_refused_and_change_nothing() {
        let long = "n".repeat(256);
        let names = ["", "/", "a/", "a/.", "..", "a/..", "b\0", long.as_str()];
        for name in names {
            let added = tree().add(name, Meta::root(0), Content::Fifo);
            assert!(
                matches!(added, Err(TreeError::BadName { .. })),
                "{name:?} {added:?}"
            );
        }
        let mut tree = tree();
        let before = tree.nodes().len();
        for path in ["b/c", "a/f/c"] {
            let added = tree.add(path, Meta::root(0), Content::Fifo);
            assert!(matches!(added, Err(TreeError::NoParent { .. })), "{path}");
        }
        let again = tree.add("a/f", Meta::root(0), Content::Fifo);
        assert!(matches!(again, Err(TreeError::Exists { .. })));
        for target in [vec![], vec![b'x'; 4096], b"a\0b".to_vec()] {
            let added = tree.add("l", Meta::root(0o777), Content::Symlink(target));
            assert!(matches!(added, Err(TreeError::BadTarget { .. })));
        }
        assert!(matches!(
            tree.link("l", "a"),
            Err(TreeError::BadLink { .. })
        ));
        assert!(matches!(
            tree.link("l", "zz"),
            Err(TreeError::BadLink { .. })
        ));
        assert_eq!(tree.nodes().len(), before);
    }

    #[test]
    fn a_hard_link_is_one_node_with_two_names() {
        let mut tree = tree();
        tree.link("g", "/a/f").expect("a link");
        assert_eq!(tree.find("g"), tree.find("a/f"));
        let node = tree
            .find("g")
            .and_then(|id| tree.get(id))
            .expect("the file");
        assert_eq!(node.links, 2);
    }
}
