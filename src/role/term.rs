//! The canonical encoding of a role: one term of serde's data model, as bytes.
//!
//! ```text
//! term := 01                      None
//!       | 02 term                 Some(..)
//!       | 03                      ()
//!       | 04 | 05                 false | true
//!       | 20-n  n bytes           integer < 0: n = 1..=16 bytes, ones' complement of its magnitude
//!       | 20                      integer 0
//!       | 20+n  n bytes           integer > 0: n = 1..=16 bytes of its magnitude
//!       | 38 8 bytes              float: its 64 bits, all flipped if negative, else the sign only
//!       | 39 3 bytes              char: its scalar value
//!       | 40 text                 string
//!       | 41 text                 bytes
//!       | 50 term* 00             tuple or sequence
//!       | 51 (term term)* 00      map: entries by ascending key, no key twice
//!       | 60 text                 unit struct                       70 .. unit variant
//!       | 61 text term            newtype struct                    71 .. newtype variant
//!       | 62 text term* 00        tuple struct                      72 .. tuple variant
//!       | 63 text (40 text term)* 00   struct: fields by name       73 .. struct variant
//! text := (byte but 00 | 00 FF)* 00    00 inside is written 00 FF; UTF-8 except after 41
//! ```
//!
//! Numbers are big-endian. No tag is `FF`, so a `00` that ends a text is never taken for an escape.
//! A value has exactly one encoding: an integer has no leading zero bytes whatever type it came
//! from, there is one `NaN` and one zero among the floats, and what has no order of its own is
//! sorted. The byte order of terms is therefore the order of integers by value, of floats by value
//! (`NaN` last), of chars and strings by code point, of tuples by their first difference; the
//! escapes and end marks (rather than lengths) are what buys that, as in the tuple layer of
//! `FoundationDB`.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::{MAX_ROLE_BYTES, MAX_ROLE_DEPTH};

const END: u8 = 0x00;
const NONE: u8 = 0x01;
const SOME: u8 = 0x02;
const UNIT: u8 = 0x03;
const FALSE: u8 = 0x04;
const TRUE: u8 = 0x05;
const LOWEST_INTEGER: u8 = ZERO - 16;
const ZERO: u8 = 0x20;
const HIGHEST_INTEGER: u8 = ZERO + 16;
const FLOAT: u8 = 0x38;
const CHAR: u8 = 0x39;
const STR: u8 = 0x40;
const BYTES: u8 = 0x41;
const TUPLE: u8 = 0x50;
const MAP: u8 = 0x51;

/// Follows a zero byte that belongs to the text; anything else there means that the text ended.
const ESCAPED: u8 = 0xff;
const SIGN_BIT: u64 = 1 << 63;
/// The quiet `NaN` of IEEE 754 without payload, which stands for all of them.
const NAN_BITS: u64 = 0x7ff8_0000_0000_0000;

/// Why reading cannot fail once a role exists: its bytes were validated or written by us.
pub(super) const IS_CANONICAL: &str = "a role holds one canonical term";

/// Why foreign bytes are not a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RoleDecodeError {
    #[error("{len} bytes are more than a role's {MAX_ROLE_BYTES}")]
    TooLong { len: usize },
    #[error("the bytes end within a term")]
    Truncated,
    #[error("bytes follow the term")]
    TrailingBytes,
    #[error("0x{0:02x} is no tag of a term")]
    UnknownTag(u8),
    #[error("a term is missing before an end mark")]
    MisplacedEnd,
    #[error("a text is not UTF-8")]
    NotUtf8,
    #[error("not canonical: {0}")]
    NotCanonical(&'static str),
    #[error("nested deeper than {MAX_ROLE_DEPTH}")]
    TooDeep,
}

/// Where an encoder writes to.
pub(super) trait Sink {
    fn put(&mut self, bytes: &[u8]);
}

impl Sink for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// What a name belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Struct = 0x60,
    Variant = 0x70,
}

/// What follows a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Unit = 0,
    Newtype = 1,
    Tuple = 2,
    Struct = 3,
}

pub(super) fn put_none(out: &mut impl Sink) {
    out.put(&[NONE]);
}

/// The term inside follows.
pub(super) fn put_some(out: &mut impl Sink) {
    out.put(&[SOME]);
}

pub(super) fn put_unit(out: &mut impl Sink) {
    out.put(&[UNIT]);
}

pub(super) fn put_bool(out: &mut impl Sink, value: bool) {
    out.put(&[if value { TRUE } else { FALSE }]);
}

pub(super) fn put_signed(out: &mut impl Sink, value: i128) {
    if value >= 0 {
        return put_unsigned(out, value.unsigned_abs());
    }
    let magnitude = value.unsigned_abs();
    let len = significant_bytes(magnitude);
    out.put(&[ZERO - len]);
    out.put(&(!magnitude).to_be_bytes()[16 - usize::from(len)..]);
}

pub(super) fn put_unsigned(out: &mut impl Sink, value: u128) {
    let len = significant_bytes(value);
    out.put(&[ZERO + len]);
    out.put(&value.to_be_bytes()[16 - usize::from(len)..]);
}

#[expect(clippy::cast_possible_truncation, reason = "a u128 has at most 128 leading zeros")]
fn significant_bytes(magnitude: u128) -> u8 {
    16 - magnitude.leading_zeros() as u8 / 8
}

pub(super) fn put_float(out: &mut impl Sink, value: f64) {
    let bits = canonical_float_bits(value);
    let ordered = if bits & SIGN_BIT == 0 { bits | SIGN_BIT } else { !bits };
    out.put(&[FLOAT]);
    out.put(&ordered.to_be_bytes());
}

/// Floats that compare equal are one role, hence one zero; and all `NaN` are one role, for a role
/// that is not equal to itself could never be removed.
fn canonical_float_bits(value: f64) -> u64 {
    if value.is_nan() {
        NAN_BITS
    } else if value == 0.0 {
        0
    } else {
        value.to_bits()
    }
}

pub(super) fn put_char(out: &mut impl Sink, value: char) {
    out.put(&[CHAR]);
    out.put(&u32::from(value).to_be_bytes()[1..]);
}

pub(super) fn put_str(out: &mut impl Sink, value: &str) {
    out.put(&[STR]);
    put_text(out, value.as_bytes());
}

pub(super) fn put_bytes(out: &mut impl Sink, value: &[u8]) {
    out.put(&[BYTES]);
    put_text(out, value);
}

/// Terms follow, then [`put_end`].
pub(super) fn put_tuple(out: &mut impl Sink) {
    out.put(&[TUPLE]);
}

/// Keys and values in turn follow, sorted by key, then [`put_end`].
pub(super) fn put_map(out: &mut impl Sink) {
    out.put(&[MAP]);
}

/// What `shape` says follows.
pub(super) fn put_named(out: &mut impl Sink, family: Family, shape: Shape, name: &str) {
    out.put(&[family as u8 + shape as u8]);
    put_text(out, name.as_bytes());
}

pub(super) fn put_end(out: &mut impl Sink) {
    out.put(&[END]);
}

/// Whether a text stands in the encoding as it is: it has no zero.
#[inline]
pub(super) fn is_plain(text: &[u8]) -> bool {
    const LOW_BITS: u64 = u64::MAX / 0xff;
    let has_zero = |word: &[u8; 8]| {
        let word = u64::from_ne_bytes(*word);
        word.wrapping_sub(LOW_BITS) & !word & (LOW_BITS << 7) != 0
    };
    // The last word may share bytes with the one before.
    match text.last_chunk() {
        Some(last) => !has_zero(last) && !text.as_chunks().0.iter().any(has_zero),
        None => !text.contains(&END),
    }
}

/// The text of a string's canonical bytes, if it is plain.
#[inline]
pub(super) fn plain_text(term: &[u8]) -> Option<&[u8]> {
    match term {
        [STR, text @ .., END] if is_plain(text) => Some(text),
        _ => None,
    }
}

/// Whether canonical bytes are those of a string of this text, which is plain.
#[inline]
pub(super) fn is_plain_text(term: &[u8], text: &[u8]) -> bool {
    matches!(term, [STR, inner @ .., END] if inner == text)
}

/// How canonical bytes compare with those of a string of this text, which is plain.
pub(super) fn cmp_plain_text(term: &[u8], text: &[u8]) -> Ordering {
    term.iter().cmp([STR].iter().chain(text).chain(&[END]))
}

fn put_text(out: &mut impl Sink, mut text: &[u8]) {
    while let Some(zero) = text.iter().position(|&byte| byte == END) {
        out.put(&text[..zero]);
        out.put(&[END, ESCAPED]);
        text = &text[zero + 1..];
    }
    out.put(text);
    out.put(&[END]);
}

/// A text as it stands in the encoding, without the zero that ends it. One that was read as a
/// string or a name is UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Text<'a> {
    escaped: &'a [u8],
}

impl<'a> Text<'a> {
    /// The bytes themselves; copied only if there is a zero among them.
    pub(super) fn bytes(self) -> Cow<'a, [u8]> {
        if !self.escaped.contains(&END) {
            return Cow::Borrowed(self.escaped);
        }
        let mut bytes = Vec::with_capacity(self.escaped.len());
        for (index, piece) in self.pieces().enumerate() {
            if index > 0 {
                bytes.push(END);
            }
            bytes.extend_from_slice(piece);
        }
        Cow::Owned(bytes)
    }

    /// The string itself, of a text that was read as a string or a name.
    pub(super) fn str(self) -> Cow<'a, str> {
        match self.bytes() {
            Cow::Borrowed(bytes) => Cow::Borrowed(str::from_utf8(bytes).expect(Self::UTF8)),
            Cow::Owned(bytes) => Cow::Owned(String::from_utf8(bytes).expect(Self::UTF8)),
        }
    }

    const UTF8: &'static str = "Reader::utf8_text has checked that this text is UTF-8";

    /// The stretches between the zero bytes of the text.
    fn pieces(self) -> impl Iterator<Item = &'a [u8]> {
        let mut rest = Some(self.escaped);
        std::iter::from_fn(move || {
            let text = rest?;
            let zero = text.iter().position(|&byte| byte == END);
            // Two bytes on: what follows a zero within a text is always the escape.
            rest = zero.map(|zero| &text[zero + 2..]);
            Some(&text[..zero.unwrap_or(text.len())])
        })
    }
}

/// One step through a term: a whole value, or the start or the end of one that holds others.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Token<'a> {
    None,
    /// One term follows.
    Some,
    Unit,
    Bool(bool),
    Negative(i128),
    Unsigned(u128),
    Float(f64),
    Char(char),
    Str(Text<'a>),
    Bytes(Text<'a>),
    /// Terms follow, then `End`.
    Tuple,
    /// Keys and values in turn follow, then `End`.
    Map,
    /// What its shape says follows.
    Named(Family, Shape, Text<'a>),
    End,
}

/// What comes after a token before its value is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holds {
    Nothing,
    OneTerm,
    Terms,
    Entries { keys_are_names: bool },
}

impl Token<'_> {
    pub(super) fn holds(&self) -> Holds {
        match self {
            Token::Some | Token::Named(_, Shape::Newtype, _) => Holds::OneTerm,
            Token::Tuple | Token::Named(_, Shape::Tuple, _) => Holds::Terms,
            Token::Map => Holds::Entries { keys_are_names: false },
            Token::Named(_, Shape::Struct, _) => Holds::Entries { keys_are_names: true },
            _ => Holds::Nothing,
        }
    }
}

/// Reads a term token by token, and refuses a token that is not canonical in itself. That the
/// tokens make up one term is for [`validate`] to say.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    pub(super) fn token(&mut self) -> Result<Token<'a>, RoleDecodeError> {
        let [tag] = self.array()?;
        Ok(match tag {
            END => Token::End,
            NONE => Token::None,
            SOME => Token::Some,
            UNIT => Token::Unit,
            FALSE => Token::Bool(false),
            TRUE => Token::Bool(true),
            LOWEST_INTEGER..ZERO => self.negative(usize::from(ZERO - tag))?,
            ZERO..=HIGHEST_INTEGER => self.unsigned(usize::from(tag - ZERO))?,
            FLOAT => self.float()?,
            CHAR => self.char()?,
            STR => Token::Str(self.utf8_text()?),
            BYTES => Token::Bytes(self.text()?),
            TUPLE => Token::Tuple,
            MAP => Token::Map,
            0x60 => Token::Named(Family::Struct, Shape::Unit, self.utf8_text()?),
            0x61 => Token::Named(Family::Struct, Shape::Newtype, self.utf8_text()?),
            0x62 => Token::Named(Family::Struct, Shape::Tuple, self.utf8_text()?),
            0x63 => Token::Named(Family::Struct, Shape::Struct, self.utf8_text()?),
            0x70 => Token::Named(Family::Variant, Shape::Unit, self.utf8_text()?),
            0x71 => Token::Named(Family::Variant, Shape::Newtype, self.utf8_text()?),
            0x72 => Token::Named(Family::Variant, Shape::Tuple, self.utf8_text()?),
            0x73 => Token::Named(Family::Variant, Shape::Struct, self.utf8_text()?),
            unknown => return Err(RoleDecodeError::UnknownTag(unknown)),
        })
    }

    /// Whether an end mark is next; if so it is read.
    pub(super) fn take_end(&mut self) -> bool {
        let at_end = self.rest.first() == Some(&END);
        if at_end {
            self.rest = &self.rest[1..];
        }
        at_end
    }

    /// Reads the next term whole, and returns its bytes.
    pub(super) fn term(&mut self) -> Result<&'a [u8], RoleDecodeError> {
        let before = self.rest;
        let mut open: usize = 0;
        loop {
            let token = self.token()?;
            match token.holds() {
                Holds::OneTerm => continue,
                Holds::Terms | Holds::Entries { .. } => open += 1,
                Holds::Nothing if token == Token::End => {
                    open = open.checked_sub(1).ok_or(RoleDecodeError::MisplacedEnd)?;
                }
                Holds::Nothing => {}
            }
            if open == 0 {
                return Ok(&before[..before.len() - self.rest.len()]);
            }
        }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], RoleDecodeError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(RoleDecodeError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], RoleDecodeError> {
        let (array, rest) = self.rest.split_first_chunk().ok_or(RoleDecodeError::Truncated)?;
        self.rest = rest;
        Ok(*array)
    }

    fn unsigned(&mut self, len: usize) -> Result<Token<'a>, RoleDecodeError> {
        let mut number = [0; 16];
        number[16 - len..].copy_from_slice(self.take(len)?);
        let value = u128::from_be_bytes(number);
        check_integer_len(value, len)?;
        Ok(Token::Unsigned(value))
    }

    fn negative(&mut self, len: usize) -> Result<Token<'a>, RoleDecodeError> {
        let mut number = [0xff; 16];
        number[16 - len..].copy_from_slice(self.take(len)?);
        let magnitude = !u128::from_be_bytes(number);
        check_integer_len(magnitude, len)?;
        let value = 0_i128
            .checked_sub_unsigned(magnitude)
            .ok_or(RoleDecodeError::NotCanonical("an integer below the least i128"))?;
        Ok(Token::Negative(value))
    }

    fn float(&mut self) -> Result<Token<'a>, RoleDecodeError> {
        let ordered = u64::from_be_bytes(self.array()?);
        let bits = if ordered & SIGN_BIT == 0 { !ordered } else { ordered & !SIGN_BIT };
        let value = f64::from_bits(bits);
        if canonical_float_bits(value) != bits {
            return Err(RoleDecodeError::NotCanonical("a second NaN or zero"));
        }
        Ok(Token::Float(value))
    }

    fn char(&mut self) -> Result<Token<'a>, RoleDecodeError> {
        let [high, middle, low] = self.array()?;
        char::from_u32(u32::from_be_bytes([0, high, middle, low]))
            .map(Token::Char)
            .ok_or(RoleDecodeError::NotCanonical("no Unicode scalar value"))
    }

    fn utf8_text(&mut self) -> Result<Text<'a>, RoleDecodeError> {
        let text = self.text()?;
        // A zero byte is a char by itself: the text is UTF-8 if the pieces between zeros are.
        let is_utf8 = text.pieces().all(|piece| str::from_utf8(piece).is_ok());
        if is_utf8 { Ok(text) } else { Err(RoleDecodeError::NotUtf8) }
    }

    fn text(&mut self) -> Result<Text<'a>, RoleDecodeError> {
        let mut len = 0;
        loop {
            let rest = &self.rest[len..];
            let zero = rest.iter().position(|&byte| byte == END);
            len += zero.ok_or(RoleDecodeError::Truncated)?;
            if self.rest.get(len + 1) != Some(&ESCAPED) {
                break;
            }
            len += 2;
        }
        let escaped = self.take(len)?;
        self.take(1)?;
        Ok(Text { escaped })
    }
}

fn check_integer_len(magnitude: u128, len: usize) -> Result<(), RoleDecodeError> {
    if usize::from(significant_bytes(magnitude)) == len {
        Ok(())
    } else {
        Err(RoleDecodeError::NotCanonical("an integer with leading zeros"))
    }
}

/// A value that [`validate`] has seen the start of and not yet the end.
enum Open<'a> {
    OneTerm,
    Terms,
    Entries { keys_are_names: bool, previous_key: Option<&'a [u8]>, turn: Turn<'a> },
}

/// Whether a key is due in a map or a value, and where the next key's bytes begin.
enum Turn<'a> {
    Key { from: &'a [u8] },
    Value,
}

impl<'a> Open<'a> {
    /// Takes note that a term directly inside has ended, with `rest` after it.
    fn handle_term(&mut self, rest: &'a [u8]) -> Result<(), RoleDecodeError> {
        let Open::Entries { keys_are_names, previous_key, turn } = self else { return Ok(()) };
        let Turn::Key { from } = *turn else {
            *turn = Turn::Key { from: rest };
            return Ok(());
        };
        let key = &from[..from.len() - rest.len()];
        if *keys_are_names && key[0] != STR {
            return Err(RoleDecodeError::NotCanonical("a field whose name is no string"));
        }
        if previous_key.is_some_and(|previous| previous >= key) {
            return Err(RoleDecodeError::NotCanonical("keys out of order or repeated"));
        }
        *previous_key = Some(key);
        *turn = Turn::Value;
        Ok(())
    }
}

/// Checks that the bytes are exactly one canonical term; returns how deep it nests.
///
/// It keeps its own stack, at most [`MAX_ROLE_DEPTH`] high, and allocates nothing else: foreign
/// bytes can neither overflow the thread's stack nor make it take memory.
pub(super) fn validate(bytes: &[u8]) -> Result<usize, RoleDecodeError> {
    let mut reader = Reader::new(bytes);
    let mut stack: Vec<Open<'_>> = Vec::new();
    let mut depth = 0;
    loop {
        let token = reader.token()?;
        let opened = match token.holds() {
            Holds::OneTerm => Some(Open::OneTerm),
            Holds::Terms => Some(Open::Terms),
            Holds::Entries { keys_are_names } => {
                let turn = Turn::Key { from: reader.rest };
                Some(Open::Entries { keys_are_names, previous_key: None, turn })
            }
            Holds::Nothing => None,
        };
        if let Some(opened) = opened {
            if stack.len() == MAX_ROLE_DEPTH {
                return Err(RoleDecodeError::TooDeep);
            }
            stack.push(opened);
            depth = depth.max(stack.len());
            continue;
        }
        if token == Token::End {
            match stack.pop() {
                Some(Open::Terms | Open::Entries { turn: Turn::Key { .. }, .. }) => {}
                _ => return Err(RoleDecodeError::MisplacedEnd),
            }
        }
        while let Some(Open::OneTerm) = stack.last() {
            stack.pop();
        }
        match stack.last_mut() {
            Some(holder) => holder.handle_term(reader.rest)?,
            None if reader.rest.is_empty() => return Ok(depth),
            None => return Err(RoleDecodeError::TrailingBytes),
        }
    }
}
