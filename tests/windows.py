"""What Windows lacks and refuses, on this system: for processes that import this module before tuneoff.

tuneoff's modules see no POSIX-only module, function or signal; other libraries see the system as it is. The whole
process may not replace by a plain rename, remove or rename a file that it has open or mapped, nor create a name that
Windows refuses. Not covered: files that libraries written in C++ or Rust create (their names are checked by the test
afterwards), files opened by another process, paths of more than 260 characters.
"""

import builtins
import os
import re
import sys
import types

MISSING_MODULES = {"resource", "fcntl", "pwd", "grp", "termios", "tty", "pty", "syslog", "posix", "_posixsubprocess"}
_SIGNALS = {"SIGABRT", "SIGFPE", "SIGILL", "SIGINT", "SIGSEGV", "SIGTERM", "SIG_DFL", "SIG_IGN"}
# names of modules that Windows lacks
_MISSING = {
    "os": re.compile(
        r"fork|forkpty|register_at_fork|killpg|wait|wait3|wait4|waitid|WNOHANG|WIF\w+|posix_spawnp?|POSIX_SPAWN_\w+|"
        r"sched_\w+|get[eu]*[ug]id|getpg\w+|getres\w+|getsid|set[eu]*[ug]id|setsid|setpgid|getloadavg|getpriority|nice|"
        r"uname|sysconf\w*|statvfs|fstatvfs|mkfifo|mknod|chown|fchown|lchown|chroot|sendfile|set_blocking|pread|pwrite|"
        r"O_NOFOLLOW|O_CLOEXEC|O_NONBLOCK|O_SYNC|O_DIRECTORY|memfd_create|openpty|ttyname|tcgetpgrp|getrandom"
    ),
    "signal": re.compile(
        rf"(?!({'|'.join(_SIGNALS)})$)SIG(?!nals|_)\w+|alarm|setitimer|getitimer|pause|pthread_\w+|sig(wait|pending)\w*"
    ),
    "socket": re.compile(r"AF_UNIX"),
    "select": re.compile(r"select|poll|epoll"),  # select takes sockets only
    "time": re.compile(r"tzset|clock_\w+"),
}
_REFUSED_NAME = re.compile(r'.*[<>:"|?*\\\x00-\x1f].*|.*[. ]|(con|prn|aux|nul|com\d|lpt\d)(\..*)?', re.IGNORECASE)


class _WindowsModule(types.ModuleType):
    """A module without the names that Windows lacks."""

    def __init__(self, module):
        super().__init__(module.__name__)
        self.__dict__["_module"] = module

    def __getattr__(self, name):
        module = self.__dict__["_module"]
        if module is sys and name == "platform":
            return "win32"
        missing = _MISSING.get(module.__name__)
        if missing and missing.fullmatch(name):
            raise AttributeError(f"module {module.__name__!r} has no attribute {name!r} on Windows")
        return getattr(module, name)


def refused_names(folder):
    """The files and folders below a folder whose names Windows refuses."""
    return [path for path in folder.rglob("*") if _REFUSED_NAME.fullmatch(path.name)]


def _import(name, globals=None, locals=None, fromlist=(), level=0):
    module = _real_import(name, globals, locals, fromlist, level)
    importer = (globals or {}).get("__name__", "")
    if level or (importer.partition(".")[0] != "tuneoff" and not _is_worker(globals)):
        return module
    if name.partition(".")[0] in MISSING_MODULES:
        raise ModuleNotFoundError(f"No module named {name!r} on Windows", name=name)
    return _WindowsModule(module) if name in {*_MISSING, "sys"} else module


def _is_worker(module):
    """The worker runs as __main__."""
    spec = (module or {}).get("__spec__")
    return spec is not None and spec.name.partition(".")[0] == "tuneoff"


def _rename(source, target, **options):
    if os.path.lexists(target):
        raise FileExistsError(17, "Windows renames over no file", str(target))
    return _real_rename(source, target, **options)


def _check_event(event, arguments):
    if event == "open":
        path, _, flags = arguments
        if isinstance(path, str) and flags & os.O_CREAT:
            _check_name(path)
    elif event == "os.mkdir":
        _check_name(arguments[0])
    elif event == "os.rename":
        _check_name(arguments[1])
        _check_is_closed(arguments[0])
        _check_is_closed(arguments[1])
    elif event == "os.remove":
        _check_is_closed(arguments[0], arguments[1])


def _check_name(path):
    name = os.path.basename(os.fspath(path))
    if isinstance(name, str) and _REFUSED_NAME.fullmatch(name):
        raise OSError(22, "Windows refuses this name", name)


def _check_is_closed(path, folder=-1):
    """Refuse a file that this process has open or mapped, and a folder that holds one."""
    path = os.path.realpath(os.fspath(path) if folder == -1 else f"/proc/self/fd/{folder}/{os.fspath(path)}")
    if path.endswith(".lock"):  # filelock removes its files in another way on Windows
        return
    with open("/proc/self/maps", encoding="utf-8") as maps:
        used = {line.split(maxsplit=5)[-1].strip() for line in maps}
    for number in os.listdir("/proc/self/fd"):
        try:
            used.add(os.readlink(f"/proc/self/fd/{number}"))
        except OSError:
            continue  # the descriptor of the listing itself
    # descriptors of folders are of shutil.rmtree, which uses none on Windows
    in_use = [name for name in used if not os.path.isdir(name) and (name == path or name.startswith(f"{path}/"))]
    if in_use:
        raise PermissionError(13, "Windows removes and renames no open file", in_use[0])


if "TUNEOFF_WINDOWS" in os.environ:
    _real_import, _real_rename = builtins.__import__, os.rename
    setattr(builtins, "__import__", _import)  # noqa: B010  mypy refuses the assignment
    setattr(os, "rename", _rename)  # noqa: B010
    sys.addaudithook(_check_event)
