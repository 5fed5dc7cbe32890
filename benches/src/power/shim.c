/* Journals what a process does to the files below one folder, so that a power cut can be played
 * on them afterwards. Loaded with LD_PRELOAD; `journal.rs` reads what this writes.
 *
 * POWER_FOLDER names a folder with three things in it: `disk`, the folder that is watched;
 * `journal`, the file written here; `graves`, where files live on that were unlinked or replaced,
 * as long as the unlinking may still be undone. All three are on one file system.
 *
 * A record is written before what it tells of wherever that is possible, with what it takes to
 * undo it; a record that a sync has ended is written after it. One lock keeps the order of the
 * journal that of the disk. A sync does not hold the lock while it waits, and covers what was in
 * the journal when it began.
 *
 * With POWER_DIE_AT=n the process dies by SIGKILL before the n-th operation that it would journal.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define KIND_WRITE 'W'
#define KIND_TRUNCATE 'T'
#define KIND_ALLOCATE 'A'
#define KIND_CREATE 'C'
#define KIND_FOLDER 'D'
#define KIND_LINK 'L'
#define KIND_RENAME 'R'
#define KIND_UNLINK 'U'
#define KIND_SYNC 'S'
#define KIND_WEAK_SYNC 'Y'
#define KIND_UNKNOWN '?'

/* A record: this, then `bytes` bytes of content, then `text` bytes of names. Little-endian, as
 * every machine that this runs on is. */
struct record {
    uint32_t magic;
    uint32_t kind;
    uint64_t inode;    /* the file, or the new entry of a folder */
    uint64_t folder;   /* the folder of the entry, the new one of a rename */
    uint64_t folder_2; /* the old folder of a rename */
    uint64_t replaced; /* the file that a rename replaces, or 0 */
    uint64_t offset;   /* where a write begins, or the end of the journal that a sync covers */
    uint64_t length;   /* of a write, or the new size */
    uint64_t size;     /* of the file before */
    uint32_t bytes;    /* of old content that follow */
    uint32_t text;     /* of names that follow; the old name of a rename comes after a NUL */
};

#define MAGIC 0x52574f50u

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static char disk[PATH_MAX];
static char graves[PATH_MAX];
static size_t disk_length;
static int journal = -1;
static long die_at, operations;

static void begin(void) {
    const char *folder = getenv("POWER_FOLDER");
    char path[PATH_MAX];
    struct stat known;
    if (!folder) return;
    snprintf(disk, sizeof disk, "%s/disk", folder);
    snprintf(graves, sizeof graves, "%s/graves", folder);
    snprintf(path, sizeof path, "%s/journal", folder);
    if (stat(disk, &known)) return;
    disk_length = strlen(disk);
    const char *when = getenv("POWER_DIE_AT");
    die_at = when ? atol(when) : 0;
    int fd = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    /* Out of the way of programs that expect the lowest numbers. */
    journal = fcntl(fd, F_DUPFD_CLOEXEC, 700);
    if (journal >= 0) syscall(SYS_close, fd);
    else journal = fd;
}

static int watching(void) {
    pthread_once(&once, begin);
    return journal >= 0;
}

#define NEXT(name) ((__typeof__(&name))next(#name))
static void *next(const char *name) {
    return dlsym(RTLD_NEXT, name);
}

static void die(void) {
    syscall(SYS_kill, getpid(), SIGKILL);
    for (;;) pause();
}

/* A journal that cannot be written would make a wrong power cut. */
static void broken(const char *what) {
    fprintf(stderr, "power shim: %s: %s\n", what, strerror(errno));
    abort();
}

/* Counts an operation, and dies in front of the one that was asked for. The lock is held. */
static void operation(void) {
    if (++operations == die_at) die();
}

static void put(struct record *record, const void *content, const char *names) {
    struct iovec parts[3] = {
        { record, sizeof *record },
        { (void *)content, record->bytes },
        { (void *)names, record->text },
    };
    record->magic = MAGIC;
    size_t length = parts[0].iov_len + parts[1].iov_len + parts[2].iov_len;
    ssize_t written = syscall(SYS_writev, (long)journal, parts, 3L);
    if (written < 0 || (size_t)written != length) broken("the journal cannot be written");
}

static int is_below(const char *path) {
    return strncmp(path, disk, disk_length) == 0 && (path[disk_length] == '/' || !path[disk_length]);
}

/* Whether a descriptor is a file or folder below the watched one. */
static int watches(int fd, struct stat *known) {
    if (!watching() || fd == journal) return 0;
    if (fstat(fd, known)) return 0;
    if (!S_ISREG(known->st_mode) && !S_ISDIR(known->st_mode)) return 0;
    char link[32], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    /* A file that was replaced or unlinked may still be written to: it lies in the graves. */
    return is_below(path);
}

/* The absolute path of `path`, whose last name is left as it is; whether it is watched. Folders
 * above are taken as they are: nothing that is tested here has links among them. */
static int locate(int at, const char *path, char *out) {
    if (!watching() || !path) return 0;
    if (path[0] == '/') {
        snprintf(out, PATH_MAX, "%s", path);
    } else {
        char link[64], base[PATH_MAX];
        if (at == AT_FDCWD) snprintf(link, sizeof link, "/proc/self/cwd");
        else snprintf(link, sizeof link, "/proc/self/fd/%d", at);
        ssize_t length = readlink(link, base, sizeof base - 1);
        if (length < 0) return 0;
        base[length] = 0;
        if (snprintf(out, PATH_MAX, "%s/%s", base, path) >= PATH_MAX) return 0;
    }
    size_t length = strlen(out);
    while (length > 1 && out[length - 1] == '/') out[--length] = 0;
    return is_below(out) && out[disk_length];
}

static uint64_t inode_of(const char *path) {
    struct stat known;
    return lstat(path, &known) ? 0 : known.st_ino;
}

/* The folder of a path; its last name is left in `name`. */
static uint64_t folder_of(const char *path, const char **name) {
    char folder[PATH_MAX];
    const char *slash = strrchr(path, '/');
    *name = slash + 1;
    snprintf(folder, sizeof folder, "%.*s", (int)(slash - path), path);
    return inode_of(folder);
}

/* Keeps a file that is about to lose its name. */
static void bury(const char *path, uint64_t inode) {
    char grave[PATH_MAX];
    struct stat known;
    if (lstat(path, &known) || !S_ISREG(known.st_mode)) return;
    if (snprintf(grave, sizeof grave, "%s/%llu", graves, (unsigned long long)inode) >= PATH_MAX)
        return;
    if (syscall(SYS_linkat, AT_FDCWD, path, AT_FDCWD, grave, 0L) && errno != EEXIST)
        broken("a file cannot be kept");
}

static void put_entry(int kind, const char *path, uint64_t inode) {
    const char *name;
    struct record record = { .kind = kind, .inode = inode, .folder = folder_of(path, &name) };
    record.text = strlen(name);
    put(&record, NULL, name);
}

/* ---- content ---- */

/* Reads `length` bytes of a file that may be open for writing only. */
static uint32_t read_old(int fd, void *into, size_t length, uint64_t offset) {
    ssize_t got = syscall(SYS_pread64, (long)fd, into, length, offset);
    if (got < 0) {
        char link[32];
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        int other = syscall(SYS_openat, AT_FDCWD, link, O_RDONLY | O_CLOEXEC, 0);
        if (other < 0) broken("a file cannot be read");
        got = syscall(SYS_pread64, (long)other, into, length, offset);
        syscall(SYS_close, other);
        if (got < 0) broken("a file cannot be read");
    }
    return got;
}

static void put_content(int kind, int fd, const struct stat *known, uint64_t offset,
                        uint64_t length, uint64_t old_from, uint64_t old_to) {
    struct record record = { .kind = kind, .inode = known->st_ino, .offset = offset,
                             .length = length, .size = known->st_size };
    if (old_to > (uint64_t)known->st_size) old_to = known->st_size;
    void *old = NULL;
    if (old_from < old_to) {
        old = malloc(old_to - old_from);
        if (!old) broken("no memory");
        record.bytes = read_old(fd, old, old_to - old_from, old_from);
    }
    operation();
    put(&record, old, NULL);
    free(old);
}

static void before_write(int fd, const struct stat *known, int64_t offset, size_t length) {
    if (offset < 0) {
        int flags = fcntl(fd, F_GETFL);
        offset = flags & O_APPEND ? known->st_size : syscall(SYS_lseek, (long)fd, 0L, SEEK_CUR);
    }
    put_content(KIND_WRITE, fd, known, offset, length, offset, offset + length);
}

static void before_truncate(int fd, const struct stat *known, uint64_t length) {
    put_content(KIND_TRUNCATE, fd, known, 0, length, length, known->st_size);
}

#define GUARDED(fd, before, call)                                              \
    struct stat known;                                                         \
    if (!watches(fd, &known)) return call;                                     \
    pthread_mutex_lock(&lock);                                                 \
    fstat(fd, &known);                                                         \
    before;                                                                    \
    __auto_type result = call;                                                 \
    int error = errno;                                                         \
    pthread_mutex_unlock(&lock);                                               \
    errno = error;                                                             \
    return result

ssize_t write(int fd, const void *bytes, size_t length) {
    GUARDED(fd, before_write(fd, &known, -1, length), syscall(SYS_write, (long)fd, bytes, length));
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset) {
    GUARDED(fd, before_write(fd, &known, offset, length),
            syscall(SYS_pwrite64, (long)fd, bytes, length, offset));
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t offset) {
    return pwrite(fd, bytes, length, offset);
}

static size_t total(const struct iovec *parts, int count) {
    size_t length = 0;
    for (int n = 0; n < count; n++) length += parts[n].iov_len;
    return length;
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    GUARDED(fd, before_write(fd, &known, -1, total(parts, count)),
            syscall(SYS_writev, (long)fd, parts, (long)count));
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset) {
    GUARDED(fd, before_write(fd, &known, offset, total(parts, count)),
            NEXT(pwritev)(fd, parts, count, offset));
}

ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t offset) {
    return pwritev(fd, parts, count, offset);
}

int ftruncate(int fd, off_t length) {
    GUARDED(fd, before_truncate(fd, &known, length), (int)syscall(SYS_ftruncate, (long)fd, length));
}

int ftruncate64(int fd, off64_t length) {
    return ftruncate(fd, length);
}

static void before_allocate(int fd, const struct stat *known, int mode, uint64_t offset,
                            uint64_t length) {
    uint64_t size = known->st_size;
    if (mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) {
        struct record record = { .kind = KIND_UNKNOWN, .inode = known->st_ino };
        put(&record, NULL, NULL);
    } else if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) {
        /* Zeros are content as well. */
        if (mode & FALLOC_FL_KEEP_SIZE && offset + length > size)
            length = offset < size ? size - offset : 0;
        put_content(KIND_WRITE, fd, known, offset, length, offset, offset + length);
    } else {
        uint64_t end = mode & FALLOC_FL_KEEP_SIZE || offset + length < size ? size : offset + length;
        put_content(KIND_ALLOCATE, fd, known, offset, end, 0, 0);
    }
}

int fallocate(int fd, int mode, off_t offset, off_t length) {
    GUARDED(fd, before_allocate(fd, &known, mode, offset, length),
            (int)syscall(SYS_fallocate, (long)fd, (long)mode, offset, length));
}

int fallocate64(int fd, int mode, off64_t offset, off64_t length) {
    return fallocate(fd, mode, offset, length);
}

int posix_fallocate(int fd, off_t offset, off_t length) {
    return fallocate(fd, 0, offset, length) ? errno : 0;
}

int posix_fallocate64(int fd, off64_t offset, off64_t length) {
    return posix_fallocate(fd, offset, length);
}

int truncate(const char *path, off_t length) {
    int fd = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CLOEXEC, 0);
    if (fd < 0) return -1;
    int result = ftruncate(fd, length), error = errno;
    syscall(SYS_close, fd);
    errno = error;
    return result;
}

int truncate64(const char *path, off64_t length) {
    return truncate(path, length);
}

/* A mapping that writes to a file cannot be journaled. */
void *mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset) {
    struct stat known;
    if (fd >= 0 && flags & MAP_SHARED && protection & PROT_WRITE && watches(fd, &known)) {
        struct record record = { .kind = KIND_UNKNOWN, .inode = known.st_ino };
        pthread_mutex_lock(&lock);
        put(&record, NULL, NULL);
        pthread_mutex_unlock(&lock);
    }
    return (void *)syscall(SYS_mmap, address, length, (long)protection, (long)flags, (long)fd, offset);
}

void *mmap64(void *address, size_t length, int protection, int flags, int fd, off64_t offset) {
    return mmap(address, length, protection, flags, fd, offset);
}

/* ---- syncs ---- */

static int synced(int fd, int kind, long call, long a, long b, long c) {
    struct stat known;
    if (!watches(fd, &known)) return syscall(call, (long)fd, a, b, c);
    struct stat written;
    struct record record = { .kind = kind, .inode = known.st_ino };
    pthread_mutex_lock(&lock);
    operation();
    fstat(journal, &written);
    pthread_mutex_unlock(&lock);
    record.offset = written.st_size;
    int result = syscall(call, (long)fd, a, b, c), error = errno;
    if (result == 0) {
        pthread_mutex_lock(&lock);
        put(&record, NULL, NULL);
        pthread_mutex_unlock(&lock);
    }
    errno = error;
    return result;
}

int fsync(int fd) {
    return synced(fd, KIND_SYNC, SYS_fsync, 0, 0, 0);
}

int fdatasync(int fd) {
    return synced(fd, KIND_SYNC, SYS_fdatasync, 0, 0, 0);
}

/* Starts or awaits writes, but neither flushes the disk's cache nor writes sizes: not durable. */
int sync_file_range(int fd, off64_t offset, off64_t length, unsigned flags) {
    return synced(fd, KIND_WEAK_SYNC, SYS_sync_file_range, offset, length, flags);
}

/* ---- names ---- */

static int open_file(int at, const char *path, int flags, mode_t mode) {
    char place[PATH_MAX];
    if (!(flags & (O_CREAT | O_TRUNC)) || (flags & O_TMPFILE) == O_TMPFILE ||
        !locate(at, path, place))
        return syscall(SYS_openat, (long)at, path, (long)flags, (long)mode);
    pthread_mutex_lock(&lock);
    int is_new = !inode_of(place);
    if (is_new && flags & O_CREAT) operation();
    /* Cut separately, so that what goes is in the journal first. */
    int fd = syscall(SYS_openat, (long)at, path, (long)(flags & ~O_TRUNC), (long)mode);
    int error = errno;
    struct stat known;
    if (fd >= 0 && is_new) {
        put_entry(KIND_CREATE, place, inode_of(place));
    } else if (fd >= 0 && flags & O_TRUNC && !fstat(fd, &known) && known.st_size) {
        before_truncate(fd, &known, 0);
        if (syscall(SYS_ftruncate, (long)fd, 0L)) broken("a file cannot be cut");
    }
    pthread_mutex_unlock(&lock);
    errno = error;
    return fd;
}

static mode_t mode_of(int flags, va_list arguments) {
    return flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(arguments, mode_t) : 0;
}

#define WITH_MODE(last, call)                                                  \
    va_list arguments;                                                         \
    va_start(arguments, last);                                                 \
    mode_t mode = mode_of(flags, arguments);                                   \
    va_end(arguments);                                                         \
    return call

int open(const char *path, int flags, ...) {
    WITH_MODE(flags, open_file(AT_FDCWD, path, flags, mode));
}

int open64(const char *path, int flags, ...) {
    WITH_MODE(flags, open_file(AT_FDCWD, path, flags | O_LARGEFILE, mode));
}

int openat(int at, const char *path, int flags, ...) {
    WITH_MODE(flags, open_file(at, path, flags, mode));
}

int openat64(int at, const char *path, int flags, ...) {
    WITH_MODE(flags, open_file(at, path, flags | O_LARGEFILE, mode));
}

int creat(const char *path, mode_t mode) {
    return open_file(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}

int creat64(const char *path, mode_t mode) {
    return creat(path, mode);
}

int mkdirat(int at, const char *path, mode_t mode) {
    char place[PATH_MAX];
    if (!locate(at, path, place)) return syscall(SYS_mkdirat, (long)at, path, (long)mode);
    pthread_mutex_lock(&lock);
    operation();
    int result = syscall(SYS_mkdirat, (long)at, path, (long)mode), error = errno;
    if (result == 0) put_entry(KIND_FOLDER, place, inode_of(place));
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}

int mkdir(const char *path, mode_t mode) {
    return mkdirat(AT_FDCWD, path, mode);
}

int renameat2(int from_at, const char *from, int to_at, const char *to, unsigned flags) {
    char source[PATH_MAX], target[PATH_MAX];
    int from_here = locate(from_at, from, source), to_here = locate(to_at, to, target);
    if (!from_here && !to_here)
        return syscall(SYS_renameat2, (long)from_at, from, (long)to_at, to, (long)flags);
    pthread_mutex_lock(&lock);
    uint64_t inode = inode_of(source), replaced = inode_of(target);
    int told = 0;
    if (inode && inode != replaced && !(flags & RENAME_NOREPLACE && replaced)) {
        const char *name, *old_name;
        char names[2 * NAME_MAX + 2];
        struct record record = { .kind = KIND_RENAME, .inode = inode, .replaced = replaced };
        record.folder = folder_of(target, &name);
        record.folder_2 = folder_of(source, &old_name);
        /* Across the border of what is watched, or an exchange: not what this can undo. */
        if (!from_here || !to_here || flags & RENAME_EXCHANGE) record.kind = KIND_UNKNOWN;
        snprintf(names, sizeof names, "%s%c%s", name, 0, old_name);
        record.text = strlen(name) + 1 + strlen(old_name);
        operation();
        if (replaced) bury(target, replaced);
        put(&record, NULL, names);
        told = 1;
    }
    int result = syscall(SYS_renameat2, (long)from_at, from, (long)to_at, to, (long)flags);
    int error = errno;
    if (result && told) {
        errno = error;
        broken("a rename failed that is in the journal");
    }
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}

int renameat(int from_at, const char *from, int to_at, const char *to) {
    return renameat2(from_at, from, to_at, to, 0);
}

int rename(const char *from, const char *to) {
    return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0);
}

int unlinkat(int at, const char *path, int flags) {
    char place[PATH_MAX];
    if (!locate(at, path, place)) return syscall(SYS_unlinkat, (long)at, path, (long)flags);
    pthread_mutex_lock(&lock);
    uint64_t inode = inode_of(place);
    if (inode) {
        operation();
        bury(place, inode);
    }
    int result = syscall(SYS_unlinkat, (long)at, path, (long)flags), error = errno;
    /* After it, since it may well fail: a folder that is not empty. A death in between leaves a
     * file that is gone without a record, which the cut takes for an unlinking as well. */
    if (result == 0) put_entry(KIND_UNLINK, place, inode);
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}

int unlink(const char *path) {
    return unlinkat(AT_FDCWD, path, 0);
}

int rmdir(const char *path) {
    return unlinkat(AT_FDCWD, path, AT_REMOVEDIR);
}

int remove(const char *path) {
    struct stat known;
    if (lstat(path, &known)) return -1;
    return unlinkat(AT_FDCWD, path, S_ISDIR(known.st_mode) ? AT_REMOVEDIR : 0);
}

int linkat(int from_at, const char *from, int to_at, const char *to, int flags) {
    char place[PATH_MAX];
    if (!locate(to_at, to, place))
        return syscall(SYS_linkat, (long)from_at, from, (long)to_at, to, (long)flags);
    pthread_mutex_lock(&lock);
    operation();
    int result = syscall(SYS_linkat, (long)from_at, from, (long)to_at, to, (long)flags);
    int error = errno;
    if (result == 0) put_entry(KIND_LINK, place, inode_of(place));
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}

int link(const char *from, const char *to) {
    return linkat(AT_FDCWD, from, AT_FDCWD, to, 0);
}

/* Streams open files by themselves, and write past this shim: a new one is created here first, so
 * that its name is known. Their content is never synced, and so never counted on. */
static void before_stream(const char *path, const char *mode) {
    char place[PATH_MAX];
    if (mode[0] == 'r' || !locate(AT_FDCWD, path, place)) return;
    int fd = open_file(AT_FDCWD, path, O_CREAT | O_WRONLY | (mode[0] == 'w' ? O_TRUNC : 0), 0666);
    if (fd >= 0) syscall(SYS_close, fd);
}

FILE *fopen(const char *path, const char *mode) {
    before_stream(path, mode);
    return NEXT(fopen)(path, mode);
}

FILE *fopen64(const char *path, const char *mode) {
    before_stream(path, mode);
    return NEXT(fopen64)(path, mode);
}
