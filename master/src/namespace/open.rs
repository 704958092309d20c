//! Open. Release is in `sessions`: it concerns what a session holds, not an inode.

use cairn_proto::{FsError, pb, xattr::CAPABILITY};

use super::{Namespace, execute::Call, setattr::kill_suid_sgid};

impl Namespace {
    pub(super) fn open_inode(
        &mut self,
        call: Call,
        request: &pb::Open,
    ) -> Result<pb::Opened, FsError> {
        let mut inode = self.inode(request.ino)?;
        if request.truncate {
            let now = self.now();
            self.set_size(&mut inode, 0)?;
            // The truncation comes with the open, and then the kernel leaves this to us.
            if call.uid != 0 {
                kill_suid_sgid(&mut inode);
            }
            self.drop_xattr(&mut inode, CAPABILITY)?;
            self.touch_data(&mut inode, now);
            self.put_inode(&inode);
        }
        let manifest = inode.row.is_regular().then(|| self.first_page(&inode)).transpose()?;
        self.sessions.hold(call.session, inode.ino);
        Ok(pb::Opened { attr: Some(inode.attr()), manifest })
    }
}
