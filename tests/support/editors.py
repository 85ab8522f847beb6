"""How editors and tools save `doc.txt`, as lines of bash: each makes SAVED of FIRST."""

FIRST = "first line\nsecond line\n"
SAVED = "first line\nsecond line\nthird line\n"

SAVES = {
    "sed": "sed -i '$a third line' doc.txt",
    "perl": "perl -i -pe '$_ .= \"third line\\n\" if eof' doc.txt",
    "perl with a backup": "perl -i~ -pe '$_ .= \"third line\\n\" if eof' doc.txt",
    "vim": "vim -N -u NONE -es -c 'normal! Gothird line' -c wq doc.txt",
    "vim with a backup": (
        "vim -N -u NONE --cmd 'set backup writebackup backupcopy=no' -es"
        " -c 'normal! Gothird line' -c wq doc.txt"
    ),
    "emacs: lock, autosave, backup by rename, write": """
        ln -s user@host.1234:5678 .#doc.txt
        echo autosaved > '#doc.txt#'
        mv doc.txt doc.txt~
        (cat doc.txt~; echo third line) > doc.txt
        rm '#doc.txt#' .#doc.txt
        """,
    "emacs: backup by copy": """
        ln -s user@host.1234:5678 .#doc.txt
        cp -p doc.txt doc.txt~
        (cat doc.txt~; echo third line) > doc.txt
        rm .#doc.txt
        """,
    "LibreOffice: lock file, temporary, rename over": """
        echo ',user,host,22.11.2026 10:00,file:///home/user/.config;' > .~lock.doc.txt#
        (cat doc.txt; echo third line) > lu12345abcde.tmp
        mv lu12345abcde.tmp doc.txt
        rm .~lock.doc.txt#
        """,
    "GNOME: output stream, backup, rename over": """
        (cat doc.txt; echo third line) > .goutputstream-ABC123
        ln doc.txt doc.txt~ && mv .goutputstream-ABC123 doc.txt
        """,
    "KDE: rename of a temporary over": """
        (cat doc.txt; echo third line) > doc.txt.AbCdEf
        mv doc.txt.AbCdEf doc.txt
        """,
    "atomic write: temporary, fsync, rename over": """
        (cat doc.txt; echo third line) > .doc.txt.tmp
        sync .doc.txt.tmp
        mv .doc.txt.tmp doc.txt
        """,
    "in place": "echo third line >> doc.txt",
}
