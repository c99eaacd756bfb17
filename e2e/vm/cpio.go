package vm

import (
	"fmt"
	"io"
	"io/fs"
)

// A file is a file of an archive.
type file struct {
	name string
	mode fs.FileMode // a regular file or a directory, and its permissions
	data []byte
}

// The bits of a mode as stat(2) has them.
const (
	modeDir     = 0o040000
	modeRegular = 0o100000
)

// cpio magic, and the name that ends an archive: the kernel's Documentation/driver-api/early-userspace/
// buffer-format.rst.
const (
	cpioMagic   = "070701"
	cpioTrailer = "TRAILER!!!"
)

// writeCPIO writes an archive in the format "newc", which the kernel reads as an initramfs. Directories
// must come before what is in them.
func writeCPIO(w io.Writer, files []file) error {
	for i, f := range files {
		mode := uint32(f.mode.Perm()) | modeRegular
		if f.mode.IsDir() {
			mode = uint32(f.mode.Perm()) | modeDir
		}
		if err := writeEntry(w, uint32(i+1), mode, f.name, f.data); err != nil {
			return fmt.Errorf("write %s to the archive: %w", f.name, err)
		}
	}
	return writeEntry(w, 0, 0, cpioTrailer, nil)
}

// writeEntry writes one entry: a header of hexadecimal numbers, the name and the data, the latter two
// filled up to a multiple of four bytes.
func writeEntry(w io.Writer, inode, mode uint32, name string, data []byte) error {
	const header = 110
	if _, err := io.WriteString(w, cpioMagic); err != nil {
		return err
	}
	for _, v := range []uint32{
		inode, mode, 0, 0, 1, 0, // uid, gid, links, mtime
		uint32(len(data)), 0, 0, 0, 0, // device of the file, device that it is
		uint32(len(name) + 1), 0, // no checksum
	} {
		if _, err := fmt.Fprintf(w, "%08X", v); err != nil {
			return err
		}
	}
	if _, err := io.WriteString(w, name+"\x00"+padding(header+len(name)+1)); err != nil {
		return err
	}
	if _, err := w.Write(data); err != nil {
		return err
	}
	_, err := io.WriteString(w, padding(len(data)))
	return err
}

// padding returns what fills n bytes up to a multiple of four.
func padding(n int) string { return "\x00\x00\x00"[:-n&3] }
