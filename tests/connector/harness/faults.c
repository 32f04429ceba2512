/* Loaded before libc into a process under test: its system calls fail, its clock jumps, and what it writes to its
 * store is recorded, as the test says that shares a page of memory with it (faults.rs). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* The page, field by field; faults.rs has the same order. All are 64 bits wide. */
enum {
	CLOCK_OFFSET, /* nanoseconds that are added to the time of day */
	SOCKET,       /* the error with which these calls fail; 0: they do not */
	ACCEPT,
	CONNECT,
	BIND,
	REGISTER,   /* epoll_ctl */
	DESCRIPTOR, /* whatever else makes a descriptor of nothing: open, dup */
	FAILED,     /* how many calls have failed */
	STORE_CALLS,  /* how many calls the store has made since this was last set to 0 */
	STORE_WHICH,  /* a bit for each of them: this one fails (the last bit stands for all later ones, too) */
	STORE_ERROR,  /* in this way: an error, or one of those below */
	STORE_RECORD, /* 1: they are written down */
	UPTIME,       /* nanoseconds that are added to the monotonic clock */
	FIELDS
};
enum { KILL = 1000, VANISH = 1001, SHORT = 1002 };

static volatile int64_t none[FIELDS];
static volatile int64_t *field = none;
static const char *folder; /* of the store */
static int record = -1;
static unsigned char ours[1024]; /* descriptors of the store */

__attribute__((constructor)) static void begin(void)
{
	const char *file = getenv("FAULTS");
	folder = getenv("FAULTS_FOLDER");
	if (!file || !folder)
		return;
	int fd = syscall(SYS_openat, AT_FDCWD, file, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return;
	void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	syscall(SYS_close, fd);
	if (page != MAP_FAILED)
		field = page;
	const char *log = getenv("FAULTS_RECORD");
	if (log)
		record = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
}

static int fails(int call)
{
	int error = (int)field[call];
	if (!error)
		return 0;
	__atomic_add_fetch(&field[FAILED], 1, __ATOMIC_RELAXED);
	errno = error;
	return 1;
}

#define REAL(name) ((__typeof__(&name))real(#name))

static void *real(const char *name)
{
	return dlsym(RTLD_NEXT, name);
}

/* The store's own file, its next version, and the folder itself. */
static int is_store(const char *path)
{
	if (!folder || !path)
		return 0;
	size_t length = strlen(folder);
	if (strncmp(path, folder, length))
		return 0;
	return !path[length] || !strncmp(path + length, "/configs.json", 13);
}

static int is_store_fd(int fd)
{
	return fd >= 0 && fd < (int)sizeof ours && ours[fd];
}

static void note(const char *what, const char *one, const char *two, long number, const void *data, size_t length)
{
	if (record < 0 || !field[STORE_RECORD])
		return;
	static const char hex[] = "0123456789abcdef";
	size_t room = 2 * length + 1024, at;
	char *line = malloc(room);
	at = snprintf(line, room, "%s %s %s %ld ", what, one ? one : "-", two ? two : "-", number);
	for (size_t i = 0; i < length; i++) {
		line[at++] = hex[((const unsigned char *)data)[i] >> 4];
		line[at++] = hex[((const unsigned char *)data)[i] & 15];
	}
	line[at++] = '\n';
	syscall(SYS_write, record, line, at);
	free(line);
}

/* One call of the store. 0: it is to be made; -1: it has failed; 1: it is to be made in part. */
static int store_call(void)
{
	int64_t which = __atomic_fetch_add(&field[STORE_CALLS], 1, __ATOMIC_RELAXED);
	if (!((uint64_t)field[STORE_WHICH] >> (which < 63 ? which : 63) & 1))
		return 0;
	char parked[4096];
	switch (field[STORE_ERROR]) {
	case KILL:
		raise(SIGKILL);
		return 0;
	case VANISH:
		snprintf(parked, sizeof parked, "%s.parked", folder);
		syscall(SYS_renameat, AT_FDCWD, folder, AT_FDCWD, parked);
		return 0;
	case SHORT:
		return 1;
	default:
		__atomic_add_fetch(&field[FAILED], 1, __ATOMIC_RELAXED);
		errno = (int)field[STORE_ERROR];
		return -1;
	}
}

/* Files */

static int opened(const char *path, int flags, mode_t mode)
{
	int is = is_store(path) && (flags & O_ACCMODE) == O_WRONLY;
	is |= is_store(path) && !strcmp(path, folder);
	if (is && store_call() < 0)
		return -1;
	if (fails(DESCRIPTOR))
		return -1;
	int fd = syscall(SYS_openat, AT_FDCWD, path, flags, mode);
	if (fd >= 0 && fd < (int)sizeof ours)
		ours[fd] = is;
	if (is && fd >= 0)
		note("open", path, NULL, fd, NULL, 0);
	return fd;
}

#define MODE(last)                                       \
	mode_t mode = 0;                                 \
	if (flags & (O_CREAT | O_TMPFILE)) {             \
		va_list list;                            \
		va_start(list, last);                    \
		mode = va_arg(list, mode_t);             \
		va_end(list);                            \
	}

int open(const char *path, int flags, ...)
{
	MODE(flags)
	return opened(path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
	MODE(flags)
	return opened(path, flags, mode);
}

ssize_t write(int fd, const void *data, size_t length)
{
	if (is_store_fd(fd)) {
		switch (store_call()) {
		case -1:
			return -1;
		case 1:
			length = (length + 1) / 2;
		}
		ssize_t written = syscall(SYS_write, fd, data, length);
		if (written > 0)
			note("write", NULL, NULL, fd, data, written);
		return written;
	}
	return REAL(write)(fd, data, length);
}

static int synced(int fd, int (*sync)(int))
{
	if (!is_store_fd(fd))
		return sync(fd);
	if (store_call() < 0)
		return -1;
	int result = sync(fd);
	if (result == 0)
		note("sync", NULL, NULL, fd, NULL, 0);
	return result;
}

int fsync(int fd)
{
	return synced(fd, REAL(fsync));
}

int fdatasync(int fd)
{
	return synced(fd, REAL(fdatasync));
}

int rename(const char *from, const char *to)
{
	if (!is_store(from) && !is_store(to))
		return REAL(rename)(from, to);
	if (store_call() < 0)
		return -1;
	int result = syscall(SYS_renameat, AT_FDCWD, from, AT_FDCWD, to);
	if (result == 0)
		note("rename", from, to, 0, NULL, 0);
	return result;
}

int unlink(const char *path)
{
	if (!is_store(path))
		return REAL(unlink)(path);
	if (store_call() < 0)
		return -1;
	int result = syscall(SYS_unlinkat, AT_FDCWD, path, 0);
	if (result == 0)
		note("unlink", path, NULL, 0, NULL, 0);
	return result;
}

int close(int fd)
{
	if (is_store_fd(fd)) {
		note("close", NULL, NULL, fd, NULL, 0);
		ours[fd] = 0;
	}
	return REAL(close)(fd);
}

/* Descriptors and sockets */

static int duplicated(int fd, int command, long argument)
{
	int is_new = command == F_DUPFD || command == F_DUPFD_CLOEXEC;
	if (is_new && fails(DESCRIPTOR))
		return -1;
	return syscall(SYS_fcntl, fd, command, argument);
}

#define ARGUMENT                                         \
	va_list list;                                    \
	va_start(list, command);                         \
	long argument = va_arg(list, long);              \
	va_end(list);

int fcntl(int fd, int command, ...)
{
	ARGUMENT
	return duplicated(fd, command, argument);
}

int fcntl64(int fd, int command, ...)
{
	ARGUMENT
	return duplicated(fd, command, argument);
}

int socket(int domain, int type, int protocol)
{
	return fails(SOCKET) ? -1 : REAL(socket)(domain, type, protocol);
}

int accept4(int fd, struct sockaddr *address, socklen_t *length, int flags)
{
	return fails(ACCEPT) ? -1 : REAL(accept4)(fd, address, length, flags);
}

int accept(int fd, struct sockaddr *address, socklen_t *length)
{
	return fails(ACCEPT) ? -1 : REAL(accept)(fd, address, length);
}

int connect(int fd, const struct sockaddr *address, socklen_t length)
{
	return fails(CONNECT) ? -1 : REAL(connect)(fd, address, length);
}

int bind(int fd, const struct sockaddr *address, socklen_t length)
{
	return fails(BIND) ? -1 : REAL(bind)(fd, address, length);
}

int epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event)
{
	return operation == EPOLL_CTL_ADD && fails(REGISTER) ? -1 : REAL(epoll_ctl)(epoll, operation, fd, event);
}

/* The time of day, and the clock that measures how long something takes */

static void shift(struct timespec *time, int which)
{
	int64_t offset = field[which];
	int64_t nanos = time->tv_nsec + offset % 1000000000;
	time->tv_sec += offset / 1000000000;
	if (nanos < 0) {
		nanos += 1000000000;
		time->tv_sec--;
	}
	time->tv_sec += nanos / 1000000000;
	time->tv_nsec = nanos % 1000000000;
}

static int is_of_day(clockid_t clock)
{
	return clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE || clock == CLOCK_TAI;
}

int clock_gettime(clockid_t clock, struct timespec *time)
{
	static __typeof__(&clock_gettime) next;
	if (!next)
		next = REAL(clock_gettime);
	int result = next(clock, time);
	if (result == 0 && is_of_day(clock))
		shift(time, CLOCK_OFFSET);
	if (result == 0 && clock == CLOCK_MONOTONIC)
		shift(time, UPTIME);
	return result;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone)
{
	struct timespec now;
	(void)zone;
	clock_gettime(CLOCK_REALTIME, &now);
	time->tv_sec = now.tv_sec;
	time->tv_usec = now.tv_nsec / 1000;
	return 0;
}

time_t time(time_t *place)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	if (place)
		*place = now.tv_sec;
	return now.tv_sec;
}
