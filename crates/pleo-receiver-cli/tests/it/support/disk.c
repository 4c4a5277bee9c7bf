/* Simulates a disk below the page cache. Loaded with LD_PRELOAD.
 *
 * $PLEO_TEST_DISK has three directories:
 *   files/  the files of the program, as the page cache has them
 *   image/  the files as the disk has them: only what a successful flush wrote
 *   state/  NAME~dirty   one byte per page: 1 if the page is not flushed
 *           NAME~cut     the smallest size since the last flush
 *           NAME~gone    the file was deleted, and no directory entry was flushed since
 *           NAME~errors  the number of failed flushes
 *           faults       what fails, see `next_fault`
 *           hits         a line for each operation that failed
 *           lock         locked during each operation
 *
 * As on Linux, a failed flush makes the pages clean although they are not on the disk, and each open
 * descriptor reports the failure once. The memory map `NAME-shm` is not a file on the disk. */

#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE 4096
#define MAX_FAULTS 16
#define MAX_FDS 4096

static char root[2048];
static size_t root_len;

/* The failed flushes that each descriptor has reported. */
static struct { ino_t inode; long errors; } reported[MAX_FDS];

__attribute__((constructor)) static void start(void) {
  const char *disk = getenv("PLEO_TEST_DISK");
  if (disk && realpath(disk, root)) root_len = strlen(root);
}

static void fail(const char *what) {
  fprintf(stderr, "disk.c: %s: %s\n", what, strerror(errno));
  abort();
}

static void path_in(char *path, size_t size, const char *format, ...) {
  size_t used = (size_t)snprintf(path, size, "%s/", root);
  va_list values;
  va_start(values, format);
  vsnprintf(path + used, size - used, format, values);
  va_end(values);
}

static int has_suffix(const char *name, const char *suffix) {
  size_t name_len = strlen(name), len = strlen(suffix);
  return name_len >= len && strcmp(name + name_len - len, suffix) == 0;
}

/* Returns the name of a file in `files/`; "." for the directory; NULL for other files. */
static const char *name_of_path(const char *path) {
  if (!root_len || strncmp(path, root, root_len) != 0) return NULL;
  if (strncmp(path + root_len, "/files", 6) != 0) return NULL;
  const char *name = path + root_len + 6;
  if (*name == 0) return ".";
  if (*name != '/' || has_suffix(name, " (deleted)") || has_suffix(name, "-shm")) return NULL;
  return name + 1;
}

static const char *name_of(int fd, char *buffer, size_t size) {
  if (!root_len) return NULL;
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t len = readlink(link, buffer, size - 1);
  if (len < 0) return NULL;
  buffer[len] = 0;
  return name_of_path(buffer);
}

static int open_state(const char *name, const char *suffix) {
  char path[4096];
  path_in(path, sizeof path, "state/%s%s", name, suffix);
  int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) fail(path);
  return fd;
}

static long read_number(const char *name, const char *suffix, long missing) {
  int fd = open_state(name, suffix);
  long number;
  if (pread(fd, &number, sizeof number, 0) != sizeof number) number = missing;
  close(fd);
  return number;
}

static void write_number(const char *name, const char *suffix, long number) {
  int fd = open_state(name, suffix);
  if (syscall(SYS_pwrite64, fd, &number, sizeof number, 0) != sizeof number) fail(name);
  close(fd);
}

static void remove_state(const char *name, const char *suffix) {
  char path[4096];
  path_in(path, sizeof path, "state/%s%s", name, suffix);
  syscall(SYS_unlinkat, AT_FDCWD, path, 0);
}

static int begin(void) {
  int lock = open_state("lock", "");
  while (flock(lock, LOCK_EX) != 0)
    if (errno != EINTR) fail("lock");
  return lock;
}

static void end(int lock, int error) {
  close(lock);
  errno = error;
}

/* Takes the next fault from `faults`. Each line is
 *   OPERATION SUFFIX ACTION SKIP COUNT
 * OPERATION is write, flush or truncate; SUFFIX ends the names of the files. SKIP operations succeed,
 * the next COUNT do ACTION (-1: all). ACTION is EIO, ENOSPC, half (writes the first half of the
 * bytes) or drop (reports success, and the disk does not change). */
static const char *next_fault(const char *operation, const char *name, char action[16]) {
  int fd = open_state("faults", "");
  char text[4096], updated[4096];
  ssize_t len = pread(fd, text, sizeof text - 1, 0);
  text[len > 0 ? len : 0] = 0;
  size_t used = 0;
  const char *taken = NULL;
  char *rest = text;
  for (char *line; (line = strsep(&rest, "\n"));) {
    char of[16], suffix[64], what[16];
    int skip, count;
    if (sscanf(line, "%15s %63s %15s %d %d", of, suffix, what, &skip, &count) != 5) continue;
    if (!taken && strcmp(of, operation) == 0 && has_suffix(name, suffix) && count != 0) {
      if (skip > 0) {
        skip--;
      } else {
        if (count > 0) count--;
        taken = strcpy(action, what);
      }
    }
    used += (size_t)snprintf(updated + used, sizeof updated - used, "%s %s %s %d %d\n", of, suffix,
                             what, skip, count);
  }
  if (len > 0) {
    ftruncate(fd, 0);
    if (syscall(SYS_pwrite64, fd, updated, used, 0) != (long)used) fail("faults");
  }
  close(fd);
  if (taken) {
    int hits = open_state("hits", "");
    char line[256];
    int size = snprintf(line, sizeof line, "%s %s %s\n", operation, name, taken);
    lseek(hits, 0, SEEK_END);
    if (syscall(SYS_write, hits, line, size) != size) fail("hits");
    close(hits);
  }
  return taken;
}

static int error_of(const char *action) {
  return strcmp(action, "ENOSPC") == 0 ? ENOSPC : EIO;
}

static ssize_t write_at(const char *name, int fd, const void *bytes, size_t len, off_t at,
                        int seeks) {
  int lock = begin();
  char buffer[16];
  const char *action = next_fault("write", name, buffer);
  int drop = action && strcmp(action, "drop") == 0;
  if (action && strcmp(action, "half") == 0 && len > 1) {
    len /= 2;
  } else if (action && !drop) {
    end(lock, error_of(action));
    return -1;
  }
  ssize_t written = seeks ? syscall(SYS_write, fd, bytes, len)
                          : syscall(SYS_pwrite64, fd, bytes, len, at);
  int error = errno;
  if (written > 0 && !drop) {
    int dirty = open_state(name, "~dirty");
    for (off_t page = at / PAGE; page <= (at + written - 1) / PAGE; page++)
      if (syscall(SYS_pwrite64, dirty, "\1", 1, page) != 1) fail("dirty");
    close(dirty);
  }
  end(lock, error);
  return written;
}

ssize_t write(int fd, const void *bytes, size_t len) {
  char buffer[4096];
  const char *name = name_of(fd, buffer, sizeof buffer);
  if (!name) return syscall(SYS_write, fd, bytes, len);
  return write_at(name, fd, bytes, len, lseek(fd, 0, SEEK_CUR), 1);
}

ssize_t pwrite64(int fd, const void *bytes, size_t len, off64_t at) {
  char buffer[4096];
  const char *name = name_of(fd, buffer, sizeof buffer);
  if (!name) return syscall(SYS_pwrite64, fd, bytes, len, at);
  return write_at(name, fd, bytes, len, at, 0);
}

ssize_t pwrite(int fd, const void *bytes, size_t len, off_t at) {
  return pwrite64(fd, bytes, len, at);
}

int ftruncate64(int fd, off64_t size) {
  char buffer[4096], fault[16];
  const char *name = name_of(fd, buffer, sizeof buffer);
  if (!name) return (int)syscall(SYS_ftruncate, fd, size);
  int lock = begin();
  const char *action = next_fault("truncate", name, fault);
  int drop = action && strcmp(action, "drop") == 0;
  if (action && !drop) {
    end(lock, error_of(action));
    return -1;
  }
  int result = (int)syscall(SYS_ftruncate, fd, size);
  int error = errno;
  if (result == 0 && !drop && size < read_number(name, "~cut", size + 1))
    write_number(name, "~cut", size);
  end(lock, error);
  return result;
}

int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }

/* Deletes from the disk what was deleted before. */
static void flush_directory(void) {
  char path[4096];
  path_in(path, sizeof path, "state");
  DIR *directory = opendir(path);
  if (!directory) fail(path);
  for (struct dirent *entry; (entry = readdir(directory));) {
    if (!has_suffix(entry->d_name, "~gone")) continue;
    entry->d_name[strlen(entry->d_name) - strlen("~gone")] = 0;
    path_in(path, sizeof path, "image/%s", entry->d_name);
    syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    remove_state(entry->d_name, "~gone");
  }
  closedir(directory);
}

/* Copies the pages that are not flushed to the disk. */
static void flush_file(const char *name) {
  char path[4096], bytes[PAGE];
  path_in(path, sizeof path, "files/%s", name);
  int file = open(path, O_RDONLY | O_CLOEXEC);
  path_in(path, sizeof path, "image/%s", name);
  int image = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  struct stat size;
  if (file < 0 || image < 0 || fstat(file, &size) != 0) fail(path);
  long cut = read_number(name, "~cut", -1);
  if (cut >= 0) ftruncate(image, cut);
  remove_state(name, "~cut");
  int dirty = open_state(name, "~dirty");
  char map[PAGE];
  ssize_t pages;
  for (off_t first = 0; (pages = pread(dirty, map, sizeof map, first)) > 0; first += pages)
    for (ssize_t index = 0; index < pages; index++) {
      if (!map[index]) continue;
      off_t at = (first + index) * PAGE;
      ssize_t len = pread(file, bytes, PAGE, at);
      if (len > 0 && syscall(SYS_pwrite64, image, bytes, len, at) != len) fail(path);
    }
  ftruncate(image, size.st_size);
  close(dirty);
  close(image);
  close(file);
  remove_state(name, "~dirty");
}

int fsync(int fd) {
  char buffer[4096], fault[16];
  const char *name = name_of(fd, buffer, sizeof buffer);
  if (!name) return (int)syscall(SYS_fsync, fd);
  int lock = begin(), error = 0;
  const char *action = next_fault("flush", name, fault);
  int drop = action && strcmp(action, "drop") == 0;
  long errors = read_number(name, "~errors", 0);
  struct stat file;
  fstat(fd, &file);
  if (action && !drop) {
    error = error_of(action);
    /* The pages are clean now, and not on the disk. */
    remove_state(name, "~dirty");
    write_number(name, "~errors", ++errors);
  } else if (fd < MAX_FDS && reported[fd].inode == file.st_ino && reported[fd].errors < errors) {
    error = EIO;
  }
  if (fd < MAX_FDS) {
    reported[fd].inode = file.st_ino;
    reported[fd].errors = errors;
  }
  if (!error && !drop) {
    flush_directory();
    if (strcmp(name, ".") != 0) flush_file(name);
  }
  end(lock, error);
  return error ? -1 : 0;
}

int fdatasync(int fd) {
  char buffer[4096];
  return name_of(fd, buffer, sizeof buffer) ? fsync(fd) : (int)syscall(SYS_fdatasync, fd);
}

int close(int fd) {
  if (fd >= 0 && fd < MAX_FDS) reported[fd].inode = 0;
  return (int)syscall(SYS_close, fd);
}

int unlink(const char *path) {
  const char *name = name_of_path(path);
  if (!name) return (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
  int lock = begin();
  int result = (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
  int error = errno;
  if (result == 0) {
    close(open_state(name, "~gone"));
    remove_state(name, "~dirty");
    remove_state(name, "~cut");
  }
  end(lock, error);
  return result;
}
