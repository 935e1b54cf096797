/* Watch what this process does to the files of one folder: count it, record it, let one fail.

   Loaded with LD_PRELOAD, so that SQLite's calls are seen as well as Python's. Each operation that
   has succeeded is a line and its bytes in the log:

       kind inode offset length path-length other-length LF path other bytes

   Kinds: create, write, truncate, sync (of a file or a folder), rename, unlink, mkdir, and mark,
   whose path is a text of the caller's. Nothing is really synced: a test need not wait for a disk.
   Not seen: writes through memory maps, links, and files that C libraries open by fopen; the
   package does none of these in a folder of its own. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static char folder[PATH_MAX];
static int log_descriptor = -1;
static long num_operations, failing = -1;
static int failing_with;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

/* Begin to watch `path`; "" ends it. `fail` is the number of the operation that fails, from 0. */
void watch(const char *path, int log, long fail, int error) {
    snprintf(folder, sizeof folder, "%s", path);
    log_descriptor = log;
    num_operations = 0;
    failing = fail;
    failing_with = error;
}

static int is_watched(const char *path) {
    size_t length = strlen(folder);
    return length && !strncmp(path, folder, length) && (path[length] == '/' || !path[length]);
}

static int path_of(int descriptor, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    path[length < 0 ? 0 : length] = 0;
    return folder[0] && is_watched(path);
}

static int path_at(int base, const char *name, char *path) {
    char start[PATH_MAX] = "";
    if (!folder[0])
        return 0;
    if (name[0] != '/') {
        if (base == AT_FDCWD) {
            if (!getcwd(start, sizeof start))
                return 0;
        } else {
            path_of(base, start);
        }
        strcat(start, "/");
    }
    snprintf(path, PATH_MAX, "%.2000s%.2000s", start, name);
    return is_watched(path);
}

static void put(const void *data, size_t length) {
    const char *rest = data;
    while (length) {
        ssize_t written = syscall(SYS_write, log_descriptor, rest, length);
        if (written <= 0)
            return;
        rest += written;
        length -= written;
    }
}

static void record(const char *kind, int descriptor, const char *path, const char *other,
                   long offset, const void *data, size_t length) {
    struct stat status = {0};
    char head[256];
    if (log_descriptor < 0)
        return;
    if (descriptor >= 0)
        fstat(descriptor, &status);
    pthread_mutex_lock(&mutex);
    put(head, snprintf(head, sizeof head, "%s %lu %ld %zu %zu %zu\n", kind,
                       (unsigned long)status.st_ino, offset, length, strlen(path), strlen(other)));
    put(path, strlen(path));
    put(other, strlen(other));
    put(data, length);
    pthread_mutex_unlock(&mutex);
}

/* Count an operation; return whether it is to fail. */
static int fails(void) {
    if (num_operations++ != failing)
        return 0;
    errno = failing_with;
    return 1;
}

void mark(const char *text) { record("mark", -1, text, "", 0, "", 0); }

ssize_t write(int descriptor, const void *data, size_t length) {
    char path[PATH_MAX];
    if (!path_of(descriptor, path))
        return REAL(write)(descriptor, data, length);
    if (fails())
        return -1;
    long offset = lseek(descriptor, 0, fcntl(descriptor, F_GETFL) & O_APPEND ? SEEK_END : SEEK_CUR);
    ssize_t written = REAL(write)(descriptor, data, length);
    if (written > 0)
        record("write", descriptor, path, "", offset, data, written);
    return written;
}

ssize_t pwrite64(int descriptor, const void *data, size_t length, off64_t offset) {
    char path[PATH_MAX];
    int is_ours = path_of(descriptor, path);
    if (is_ours && fails())
        return -1;
    ssize_t written = REAL(pwrite64)(descriptor, data, length, offset);
    if (is_ours && written > 0)
        record("write", descriptor, path, "", offset, data, written);
    return written;
}

ssize_t pwrite(int descriptor, const void *data, size_t length, off_t offset) {
    return pwrite64(descriptor, data, length, offset);
}

int ftruncate64(int descriptor, off64_t length) {
    char path[PATH_MAX];
    int is_ours = path_of(descriptor, path);
    if (is_ours && fails())
        return -1;
    int result = REAL(ftruncate64)(descriptor, length);
    if (is_ours && !result)
        record("truncate", descriptor, path, "", length, "", 0);
    return result;
}

int ftruncate(int descriptor, off_t length) { return ftruncate64(descriptor, length); }

int fsync(int descriptor) {
    char path[PATH_MAX];
    if (!path_of(descriptor, path))
        return REAL(fsync)(descriptor);
    if (fails())
        return -1;
    record("sync", descriptor, path, "", 0, "", 0);
    return 0;
}

int fdatasync(int descriptor) { return fsync(descriptor); }

int renameat(int base, const char *name, int other_base, const char *other_name) {
    char path[PATH_MAX], other[PATH_MAX];
    int is_ours = path_at(base, name, path) | path_at(other_base, other_name, other);
    if (is_ours && fails())
        return -1;
    int result = REAL(renameat)(base, name, other_base, other_name);
    if (is_ours && !result)
        record("rename", -1, path, other, 0, "", 0);
    return result;
}

int rename(const char *name, const char *other) {
    return renameat(AT_FDCWD, name, AT_FDCWD, other);
}

int unlinkat(int base, const char *name, int flags) {
    char path[PATH_MAX];
    int is_ours = path_at(base, name, path) && !faccessat(base, name, F_OK, AT_SYMLINK_NOFOLLOW);
    if (is_ours && fails())
        return -1;
    int result = REAL(unlinkat)(base, name, flags);
    if (is_ours && !result)
        record("unlink", -1, path, "", 0, "", 0);
    return result;
}

int unlink(const char *name) { return unlinkat(AT_FDCWD, name, 0); }

int mkdirat(int base, const char *name, mode_t mode) {
    char path[PATH_MAX];
    int is_ours = path_at(base, name, path) && faccessat(base, name, F_OK, AT_SYMLINK_NOFOLLOW);
    if (is_ours && fails())
        return -1;
    int result = REAL(mkdirat)(base, name, mode);
    if (is_ours && !result)
        record("mkdir", -1, path, "", 0, "", 0);
    return result;
}

int mkdir(const char *name, mode_t mode) { return mkdirat(AT_FDCWD, name, mode); }

int openat64(int base, const char *name, int flags, ...) {
    char path[PATH_MAX];
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(arguments, mode_t) : 0;
    va_end(arguments);
    int changes = flags & (O_CREAT | O_TRUNC) && path_at(base, name, path);
    int is_new = changes && faccessat(base, name, F_OK, AT_SYMLINK_NOFOLLOW);
    changes = is_new ? flags & O_CREAT : changes && flags & O_TRUNC;
    if (changes && fails())
        return -1;
    int descriptor = REAL(openat64)(base, name, flags, mode);
    if (changes && descriptor >= 0)
        record(is_new ? "create" : "truncate", descriptor, path, "", 0, "", 0);
    return descriptor;
}

#define OPEN(function, base_parameter, base)                                                       \
    int function(base_parameter const char *name, int flags, ...) {                                \
        va_list arguments;                                                                         \
        va_start(arguments, flags);                                                                \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(arguments, mode_t) : 0;               \
        va_end(arguments);                                                                         \
        return openat64(base, name, flags, mode);                                                  \
    }
#define WITH_BASE int base,
OPEN(open, , AT_FDCWD)
OPEN(open64, , AT_FDCWD)
OPEN(openat, WITH_BASE, base)
