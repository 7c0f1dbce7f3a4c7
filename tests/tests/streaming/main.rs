//! Streaming: fills, resumes, ranges and wrong bytes, against a chaos upstream.
