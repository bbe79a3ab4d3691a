//! Every limit on what a peer can send, or make a node keep.

/// The largest UDP payload there is over IPv4.
pub const MAX_DATAGRAM_BYTES: usize = 65_507;

/// Frames in one datagram.
pub const MAX_FRAMES_PER_DATAGRAM: usize = 2048;

/// Scopes that one node can be in.
pub const MAX_SCOPES_PER_NODE: usize = 256;

/// Roles that one node can hold in one scope, and operations in one delta.
pub const MAX_ROLES_PER_NODE: usize = 65_536;

/// Encoded bytes of all roles of one node in one scope.
pub const MAX_ROLE_SET_BYTES: usize = 4 << 20;

/// An encoded object (a profile, or a node's roles in a scope) that is sent in parts.
pub const MAX_OBJECT_BYTES: usize = MAX_ROLE_SET_BYTES + (MAX_ROLES_PER_NODE * 4);

/// Objects asked for in one fetch.
pub const MAX_FETCHES_PER_FRAME: usize = 64;

/// Tables compared in one frame.
pub const MAX_TABLES_PER_FRAME: usize = 64;

/// Buckets in one digest of a table.
pub const MAX_BUCKETS: usize = 128;

/// Cells of a sketch in one frame.
pub const MAX_CELLS_PER_FRAME: usize = 64;

/// Cells of a sketch that are compared before the difference counts as too large for it.
pub const MAX_SKETCH_CELLS: usize = 512;

/// Entries that one range pull says it knows.
pub const MAX_KNOWN_PER_PULL: usize = 256;

/// Nodes that this node keeps, the living and the remembered dead.
pub const MAX_NODES: usize = 131_072;

/// Dead nodes that this node remembers.
pub const MAX_DEAD: usize = 4096;

/// Members that a verdict of failure names as witnesses.
pub const MAX_WITNESSES: usize = 16;

/// Ranges of ids that one report names as not heard of.
pub const MAX_UNHEARD_PARTS: usize = 32;
