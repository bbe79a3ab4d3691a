//! How a role is printed: as a person would write its value in Rust.

use std::fmt::{self, Write as _};

use super::MAX_ROLE_DEPTH;
use super::term::{Holds, IS_CANONICAL, Reader, Shape, Token};

/// Prints a canonical term as a person would write it in Rust.
pub(super) struct Printed<'a>(pub(super) &'a [u8]);

impl fmt::Display for Printed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print_term(&mut Reader::new(self.0), MAX_ROLE_DEPTH, f)
    }
}

fn print_term(
    reader: &mut Reader<'_>,
    depth_left: usize,
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    let mut whole = *reader;
    let token = reader.token().expect(IS_CANONICAL);
    if token.holds() != Holds::Nothing && depth_left == 0 {
        // Such a role can be made in memory, but never be taken: see `Role::check_len`.
        whole.term().expect(IS_CANONICAL);
        *reader = whole;
        return f.write_str("..");
    }
    match token {
        Token::None => f.write_str("None"),
        Token::Some => {
            f.write_str("Some(")?;
            print_term(reader, depth_left - 1, f)?;
            f.write_char(')')
        }
        Token::Unit => f.write_str("()"),
        Token::Bool(value) => write!(f, "{value}"),
        Token::Negative(value) => write!(f, "{value}"),
        Token::Unsigned(value) => write!(f, "{value}"),
        // Debug, unlike Display, keeps the point of a whole float.
        Token::Float(value) => write!(f, "{value:?}"),
        Token::Char(value) => write!(f, "{value:?}"),
        Token::Str(text) => write!(f, "{:?}", text.str()),
        Token::Bytes(text) => write!(f, "b\"{}\"", text.bytes().escape_ascii()),
        // `()` is the unit, which is another term.
        Token::Tuple if reader.take_end() => f.write_str("[]"),
        Token::Tuple => print_terms(reader, depth_left - 1, true, f),
        Token::Map => print_entries(reader, depth_left - 1, false, f),
        Token::Named(_, shape, name) => {
            print_name(&name.str(), f)?;
            match shape {
                Shape::Unit => Ok(()),
                Shape::Newtype => {
                    f.write_char('(')?;
                    print_term(reader, depth_left - 1, f)?;
                    f.write_char(')')
                }
                Shape::Tuple => print_terms(reader, depth_left - 1, false, f),
                Shape::Struct => {
                    f.write_char(' ')?;
                    print_entries(reader, depth_left - 1, true, f)
                }
            }
        }
        Token::End => unreachable!("{IS_CANONICAL}"),
    }
}

/// A name is quoted if it is none in Rust, so that it can forge neither a line nor another term.
fn print_name(name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let is_plain = name.starts_with(|first: char| first.is_alphabetic() || first == '_')
        && name.chars().all(|each| each.is_alphanumeric() || matches!(each, '_' | '-'));
    if is_plain { f.write_str(name) } else { write!(f, "#{name:?}") }
}

fn print_terms(
    reader: &mut Reader<'_>,
    depth_left: usize,
    is_tuple: bool,
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    f.write_char('(')?;
    let mut count = 0;
    while !reader.take_end() {
        f.write_str(if count == 0 { "" } else { ", " })?;
        print_term(reader, depth_left, f)?;
        count += 1;
    }
    // As in Rust, `(1,)` is a tuple and `(1)` only a number in parentheses.
    f.write_str(if is_tuple && count == 1 { ",)" } else { ")" })
}

fn print_entries(
    reader: &mut Reader<'_>,
    depth_left: usize,
    is_struct: bool,
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    let padding = if is_struct { " " } else { "" };
    let mut separator = padding;
    f.write_char('{')?;
    while !reader.take_end() {
        f.write_str(separator)?;
        if is_struct {
            let Ok(Token::Str(field)) = reader.token() else { unreachable!("{IS_CANONICAL}") };
            print_name(&field.str(), f)?;
        } else {
            print_term(reader, depth_left, f)?;
        }
        f.write_str(": ")?;
        print_term(reader, depth_left, f)?;
        separator = ", ";
    }
    let is_empty = separator == padding;
    f.write_str(if is_empty { "" } else { padding })?;
    f.write_char('}')
}
