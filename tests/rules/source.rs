//! Just enough of Rust's lexical rules to tell code from comments, strings and tests.

use std::ops::Range;

/// The text with comments and the contents of literals blanked, line breaks and lengths kept.
pub fn only_code(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let in_word = code.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let blank = blank_len(rest, in_word);
        if blank == 0 {
            code.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        }
        let (blanked, after) = rest.split_at(blank);
        code.extend(blanked.bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }));
        rest = after;
    }
    code
}

/// Length in bytes of the comment or literal that `text` begins with; 0 when it begins with code.
fn blank_len(text: &str, in_word: bool) -> usize {
    if text.starts_with("//") {
        return text.find('\n').unwrap_or(text.len());
    }
    if text.starts_with("/*") {
        return block_comment_len(text);
    }
    if let Some(len) = (!in_word).then(|| raw_string_len(text)).flatten() {
        return len;
    }
    if let Some(inner) = text.strip_prefix('"') {
        return 1 + quoted_len(inner, '"');
    }
    if let Some(inner) = text.strip_prefix('\'') {
        return char_literal_len(inner).map_or(0, |len| 1 + len);
    }
    0
}

fn block_comment_len(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if let Some(inner) = rest.strip_prefix("/*") {
            depth += 1;
            rest = inner;
        } else if let Some(outer) = rest.strip_prefix("*/") {
            depth -= 1;
            rest = outer;
            if depth == 0 {
                break;
            }
        } else {
            rest = &rest[c.len_utf8()..];
        }
    }
    text.len() - rest.len()
}

fn raw_string_len(text: &str) -> Option<usize> {
    let after_prefix = text.strip_prefix("br").or_else(|| text.strip_prefix('r'))?;
    let hashes = after_prefix.bytes().take_while(|&byte| byte == b'#').count();
    let body = after_prefix[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let body_len = body.find(&end).map_or(body.len(), |at| at + end.len());
    Some(text.len() - body.len() + body_len)
}

/// Length of what follows an opening quote, with its closing one.
fn quoted_len(body: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in body.char_indices() {
        if c == quote && !escaped {
            return at + c.len_utf8();
        }
        escaped = c == '\\' && !escaped;
    }
    body.len()
}

/// The same for a character literal; `None` when the quote begins a lifetime.
fn char_literal_len(inner: &str) -> Option<usize> {
    let mut chars = inner.chars();
    let first = chars.next()?;
    let is_literal = first == '\\' || chars.next() == Some('\'');
    is_literal.then(|| quoted_len(inner, '\''))
}

/// The code with every item behind `#[cfg(test)]` blanked.
pub fn code_without_tests(code: &str) -> String {
    let mut left = code.to_owned();
    for (at, attribute) in code.match_indices("#[cfg(test)]") {
        let end = match (block_after(code, at), code[at..].find(';')) {
            (Some(block), Some(semicolon)) if block.start > at + semicolon => at + semicolon + 1,
            (Some(block), _) => block.end,
            (None, Some(semicolon)) => at + semicolon + 1,
            (None, None) => at + attribute.len(),
        };
        let blank: String =
            code[at..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        if blank.len() == end - at {
            left.replace_range(at..end, &blank);
        }
    }
    left
}

/// The next `{ ... }` at or after this place. The code must be free of comments and literals.
pub fn block_after(code: &str, at: usize) -> Option<Range<usize>> {
    let start = at + code[at..].find('{')?;
    let mut depth = 0_usize;
    for (offset, byte) in code[start..].bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(start..start + offset + 1);
        }
    }
    None
}
