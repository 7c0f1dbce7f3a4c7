use std::io::Write;

use super::*;

fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

#[test]
fn cached_bytes_are_read_without_blocking_except_at_the_end_of_the_file() {
    let file = file(b"0123456789");
    let mut buffer = [0; 4];
    // Not every filesystem supports it.
    if let Some(count) = read_nowait(&file, 3, &mut buffer).unwrap() {
        assert_eq!(buffer.get(..count).unwrap(), b"3456".get(..count).unwrap());
    }
    assert_eq!(read_nowait(&file, 10, &mut buffer).unwrap(), None);
    assert_eq!(read_nowait(&file, 3, &mut []).unwrap(), Some(0));
    assert_eq!(read_once(&file, 8, &mut buffer).unwrap(), 2);
}

#[test]
fn a_read_buffer_reads_a_whole_file_and_reuses_memory_that_was_dropped() {
    let file = file(b"0123456789");
    let mut buffer = ReadBuffer::new(4);
    let first = buffer.read(&file, 0, 100).unwrap();
    let address = first.as_ptr();
    assert_eq!(first, "0123");
    drop(first);
    let second = buffer.read(&file, 4, 3).unwrap();
    assert_eq!(second, "456");
    assert_eq!(second.as_ptr(), address, "dropped memory is reused");
    let third = buffer.read(&file, 7, 100).unwrap();
    assert_eq!((second, third.clone()), (Bytes::from("456"), Bytes::from("789")));
    assert_ne!(third.as_ptr(), address, "a chunk that is still used is never overwritten");
    assert_eq!(buffer.read(&file, 10, 4).unwrap(), "");
    if let Some(chunk) = buffer.read_nowait(&file, 2, 3).unwrap() {
        assert!("234".as_bytes().starts_with(&chunk));
    }
    assert_eq!(buffer.read_nowait(&file, 10, 3).unwrap(), None);
}
