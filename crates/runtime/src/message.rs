//! ONNX Runtime's messages without the paths of machines in them.
//!
//! Why: they carry the model's local path, source paths of the machine that built the library and C++ signatures; callers
//! must see none of these, and operators gain nothing from the latter two.

/// For callers: the message with source places, C++ signatures and absolute paths taken out, on one line.
pub(crate) fn plain(message: &str) -> String {
    reduce(message, false)
}

/// For operators: as [`plain`], with the paths of this machine left in.
pub(crate) fn with_paths(message: &str) -> String {
    reduce(message, true)
}

fn reduce(message: &str, keep_paths: bool) -> String {
    // "Non-zero status code returned while running Gather node. Name:'' Status Message: ..." -> "Gather node: ..."
    if let Some((before, after)) = message.split_once("Status Message: ")
        && let Some((_, node)) = before.split_once("while running ")
        && let Some((operator, _)) = node.split_once(" node")
    {
        // A Loop around it has one such head for each level; the innermost is the one that failed.
        let inner = reduce(after, keep_paths);
        return if inner.starts_with(&format!("{operator} node:")) {
            inner
        } else {
            format!("{operator} node: {inner}")
        };
    }
    let mut kept = String::with_capacity(message.len());
    let mut rest = message.trim();
    while !rest.is_empty() {
        let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let after = after.trim_start();
        if is_source_place(word) {
            rest = skip_signature(after);
            continue;
        }
        if keep_paths || !is_path(word) {
            if !kept.is_empty() {
                kept.push(' ');
            }
            kept.push_str(word);
        }
        rest = after;
    }
    kept
}

/// `/build/onnxruntime/core/framework/x.cc:123`
fn is_source_place(word: &str) -> bool {
    let Some((file, line)) = word.trim_end_matches([':', ',']).rsplit_once(':') else { return false };
    let source = [".cc", ".h", ".cpp", ".hpp", ".cu", ".cuh"].iter().any(|ending| file.ends_with(ending));
    source && !line.is_empty() && line.bytes().all(|byte| byte.is_ascii_digit())
}

/// An absolute path, also as the value of a `key=`, in quotes or in brackets.
fn is_path(word: &str) -> bool {
    let bare = word.trim_start_matches(['"', '\'', '`', '(', '[']);
    let bare = bare.strip_prefix("file=").unwrap_or(bare);
    bare.starts_with('/') && bare.len() > 1 && bare[1..].starts_with(|c: char| c.is_alphanumeric() || "._-".contains(c))
}

/// After a source place comes the function: a name, or a whole signature that ends with `)` and perhaps ` const` and
/// `[with T = ...]`.
fn skip_signature(text: &str) -> &str {
    let is_signature = text.find("::").is_some_and(|colons| text.find('(').is_some_and(|open| colons < open));
    let first_word = text.find(char::is_whitespace).unwrap_or(text.len());
    if !is_signature {
        return text[first_word..].trim_start();
    }
    let mut depth = 0_usize;
    let mut end = text.len();
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'(' => depth += 1,
            b')' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    end = at + 1;
                    break;
                }
            }
            _ => {}
        }
    }
    let mut rest = text[end..].trim_start();
    rest = rest.strip_prefix("const").map_or(rest, str::trim_start);
    if rest.starts_with("[with ")
        && let Some(close) = rest.find(']')
    {
        rest = rest[close + 1..].trim_start();
    }
    rest
}

/// Whether an allocation failed: ours by the memory limit, the system's, or the device's.
pub(crate) fn is_out_of_memory(message: &str) -> bool {
    const SIGNS: [&str; 7] = [
        "Failed to allocate memory",
        "Available memory of",
        "bad_alloc",
        "bad allocation",
        "CUDA failure 2:",
        "out of memory",
        "CUBLAS_STATUS_ALLOC_FAILED",
    ];
    SIGNS.iter().any(|sign| message.contains(sign))
}

/// Whether the device failed and not the request.
pub(crate) fn is_device_failure(message: &str) -> bool {
    ["CUDA failure", "CUDA error", "CUDNN failure", "CUDNN_STATUS", "CUBLAS failure", "CUBLAS_STATUS", "CUFFT"]
        .iter()
        .any(|sign| message.contains(sign))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_places_and_signatures_are_taken_out_and_the_reason_stays() {
        let cases = [
            (
                "Non-zero status code returned while running Gather node. Name:'' Status Message: \
                 /onnxruntime_src/onnxruntime/core/providers/cpu/tensor/gather.cc:85 onnxruntime::common::Status \
                 onnxruntime::GatherBase::Prepare(onnxruntime::OpKernelContext*, Prepare&) const [with T = long] indices \
                 element out of data bounds, idx=99 must be within the inclusive range [-4,3]",
                "Gather node: indices element out of data bounds, idx=99 must be within the inclusive range [-4,3]",
            ),
            (
                "Non-zero status code returned while running Loop node. Name:'l' Status Message: Non-zero status code \
                 returned while running Add node. Name:'a' Status Message: x",
                "Loop node: Add node: x",
            ),
            (
                "Load model from /srv/models/m/model.onnx failed:Protobuf parsing failed.",
                "Load model from failed:Protobuf parsing failed.",
            ),
            ("CUDA failure 700: bad ; file=/src/a.cu ; line=3", "CUDA failure 700: bad ; ; line=3"),
            ("ratio 1/2 and a / b stay", "ratio 1/2 and a / b stay"),
            ("  two\n lines  ", "two lines"),
        ];
        for (message, expected) in cases {
            assert_eq!(plain(message), expected);
        }
    }

    #[test]
    fn a_message_that_ends_in_the_middle_does_not_panic() {
        let message = "a/b.cc:1 ns::f(int, g(x)) const [with T = y] é reason /p";
        for (end, _) in message.char_indices() {
            let _ = plain(&message[..end]);
        }
    }
}
