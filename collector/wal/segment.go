package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/prometheus/tsdb/fileutil"
)

const (
	suffix = ".wal"
	magic  = "TCSNWAL1"
	// headerSize is the magic, the number of samples in earlier segments and
	// the time of creation in milliseconds.
	headerSize = len(magic) + 8 + 8
	// frameSize is what precedes a frame's payload: its length, its number of
	// samples, and the checksum of that number and the payload.
	frameSize = 4 + 4 + 4
	// maxPayload is far beyond the largest scrape.
	maxPayload = 1 << 30
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// segment is one file of the log.
type segment struct {
	number int
	// size is the end of the last whole frame, in bytes.
	size int64
	// before counts the samples in all earlier segments.
	before  uint64
	created time.Time
}

func (s segment) path(dir string) string {
	return filepath.Join(dir, fmt.Sprintf("%08d%s", s.number, suffix))
}

func (s *segment) create(dir string) (*os.File, error) {
	file, err := os.OpenFile(s.path(dir), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	header := []byte(magic)
	header = binary.BigEndian.AppendUint64(header, s.before)
	header = binary.BigEndian.AppendUint64(header, uint64(s.created.UnixMilli()))
	_, err = file.Write(header)
	if err = errors.Join(err, syncDir(dir)); err != nil {
		return nil, errors.Join(err, file.Close(), os.Remove(file.Name()))
	}
	s.size = int64(headerSize)
	return file, nil
}

func syncDir(dir string) error {
	d, err := fileutil.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// listSegments returns the segments in a directory, in order, and the number
// of samples that were ever committed. It removes what has no whole header.
func listSegments(dir string) (all []segment, committed uint64, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, 0, err
	}
	for _, entry := range entries {
		name, isSegment := strings.CutSuffix(entry.Name(), suffix)
		number, nerr := strconv.Atoi(name)
		if !isSegment || nerr != nil {
			continue
		}
		s, samples, err := readSegment(dir, number)
		if errors.Is(err, errNoHeader) {
			err = os.Remove(s.path(dir))
		} else if err == nil {
			all, committed = append(all, s), max(committed, s.before+samples)
		}
		if err != nil {
			return nil, 0, err
		}
	}
	slices.SortFunc(all, func(a, b segment) int { return a.number - b.number })
	return all, committed, nil
}

var errNoHeader = errors.New("segment has no header")

// readSegment finds the end of the last whole frame and counts the samples.
func readSegment(dir string, number int) (s segment, samples uint64, err error) {
	s.number = number
	file, err := os.Open(s.path(dir))
	if err != nil {
		return s, 0, err
	}
	defer file.Close()
	if err := s.readHeader(file); err != nil {
		return s, 0, err
	}
	info, err := file.Stat()
	if err != nil {
		return s, 0, err
	}
	for {
		f, err := readFrameHead(file, s.size)
		if err != nil || f.end(s.size) > info.Size() {
			return s, samples, nil
		}
		s.size = f.end(s.size)
		samples += uint64(f.samples)
	}
}

func (s *segment) readHeader(r io.ReaderAt) error {
	header := make([]byte, headerSize)
	if _, err := r.ReadAt(header, 0); err != nil || string(header[:len(magic)]) != magic {
		return fmt.Errorf("%w: %08d%s", errNoHeader, s.number, suffix)
	}
	s.before = binary.BigEndian.Uint64(header[len(magic):])
	s.created = time.UnixMilli(int64(binary.BigEndian.Uint64(header[len(magic)+8:])))
	s.size = int64(headerSize)
	return nil
}

// frameHead precedes a payload.
type frameHead struct {
	length, samples, sum uint32
}

func readFrameHead(r io.ReaderAt, at int64) (f frameHead, err error) {
	var head [frameSize]byte
	if _, err := r.ReadAt(head[:], at); err != nil {
		return f, err
	}
	f = frameHead{
		length:  binary.BigEndian.Uint32(head[:]),
		samples: binary.BigEndian.Uint32(head[4:]),
		sum:     binary.BigEndian.Uint32(head[8:]),
	}
	if f.length == 0 || f.length > maxPayload {
		return f, fmt.Errorf("frame of %d bytes", f.length)
	}
	return f, nil
}

// end is where the next frame begins.
func (f frameHead) end(at int64) int64 { return at + frameSize + int64(f.length) }

// putFrameHead fills in what precedes the payload in buf.
func putFrameHead(buf []byte, samples int) {
	binary.BigEndian.PutUint32(buf, uint32(len(buf)-frameSize))
	binary.BigEndian.PutUint32(buf[4:], uint32(samples))
	binary.BigEndian.PutUint32(buf[8:], checksum(uint32(samples), buf[frameSize:]))
}

func checksum(samples uint32, payload []byte) uint32 {
	sum := crc32.Checksum(binary.BigEndian.AppendUint32(nil, samples), castagnoli)
	return crc32.Update(sum, castagnoli, payload)
}
